#include "curve/use_order.hpp"

#include <algorithm>
#include <stdexcept>

namespace tiercel {

namespace {

// Four to a block, so that few renumberings are needed; two at least, so that a path always finds room after one.
std::size_t choose_num_positions(std::size_t num_blocks) {
  return std::min<std::size_t>(4 * num_blocks, ~std::uint32_t{0} - 1);
}

}  // namespace

UseOrder::UseOrder(std::span<const BlockId> parents, std::span<const std::uint8_t> marked)
    : parents_(parents),
      marked_(marked),
      num_positions_(choose_num_positions(parents.size())),
      positions_(parents.size(), kNever),
      used_(num_positions_),
      used_marked_(marked.empty() ? 0 : num_positions_) {
  if (!marked.empty() && marked.size() != parents.size()) throw std::invalid_argument("marked: one flag a block");
}

std::span<const UseOrder::Stretch> UseOrder::look_up(BlockId leaf) {
  collect_path(parents_, leaf, path_);
  if (top_ + path_.size() > num_positions_) renumber();
  stretches_.clear();
  const std::size_t length = path_.size();
  for (std::size_t depth = 0; depth < length;) {
    const auto position_at = [&](std::size_t at) {
      return positions_[static_cast<std::size_t>(path_[length - 1 - at])];
    };
    const std::uint32_t position = position_at(depth);
    if (position == kNever) break;
    std::uint32_t count = 1;
    while (depth + count < length && position >= count && position_at(depth + count) == position - count) ++count;
    const std::size_t marked_above = marked_.empty() ? 0 : used_marked_.count_from(position + std::size_t{1});
    stretches_.push_back({depth, count, used_.count_from(position), marked_above, position});
    depth += count;
  }
  return stretches_;
}

void UseOrder::use_path() {
  for (const Stretch& stretch : stretches_) used_.clear(stretch.position + 1 - stretch.count, stretch.count);
  used_.set(top_, path_.size());
  if (!marked_.empty()) move_marks(static_cast<std::uint32_t>(top_));
  std::uint32_t position = static_cast<std::uint32_t>(top_);
  for (const BlockId block : path_) positions_[static_cast<std::size_t>(block)] = position++;
  top_ += path_.size();
}

void UseOrder::move_marks(std::uint32_t top) {
  for (std::size_t at = 0; at < path_.size(); ++at) {
    if (!is_marked(path_[at])) continue;
    const std::uint32_t before = positions_[static_cast<std::size_t>(path_[at])];
    if (before != kNever) used_marked_.clear(before, 1);
    used_marked_.set(top + at, 1);
  }
}

void UseOrder::renumber() {
  for (std::uint32_t& position : positions_) {
    if (position != kNever) position = static_cast<std::uint32_t>(used_.count_before(position));
  }
  top_ = used_.count();
  used_.clear_all();
  used_.set(0, top_);
  if (marked_.empty()) return;
  used_marked_.clear_all();
  for (std::size_t block = 0; block < positions_.size(); ++block) {
    if (marked_[block] != 0 && positions_[block] != kNever) used_marked_.put(positions_[block]);
  }
  used_marked_.recount();
}

}  // namespace tiercel
