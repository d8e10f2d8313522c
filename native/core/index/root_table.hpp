// The distinct roots (one per fingerprint and namespace) of the paths in the index, counted by the runs that use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "index/tenants.hpp"
#include "key.hpp"

namespace tiercel {

class RootTable {
 public:
  // The number of `key`, entered if it is new. One use more.
  std::uint32_t acquire(const Key& key) {
    const auto [found, is_new] = numbers_.try_emplace(key, 0);
    if (is_new) {
      if (unused_.empty()) {
        unused_.push_back(static_cast<std::uint32_t>(roots_.size()));
        roots_.push_back({});
      }
      found->second = unused_.back();
      unused_.pop_back();
      roots_[found->second] = {key, 0};
    }
    ++roots_[found->second].num_uses;
    return found->second;
  }
  void add_use(std::uint32_t number) noexcept { ++roots_[number].num_uses; }
  // One use less; the last one forgets the root.
  void release(std::uint32_t number) {
    if (--roots_[number].num_uses == 0) forget(number);
  }
  const Key& key(std::uint32_t number) const noexcept { return roots_[number].key; }

  // Whose the root is, in use or not.
  Tenant tenant_of(const Key& key) const {
    if (tenants_.empty()) return kEverybody;
    const auto found = tenants_.find(key);
    return found == tenants_.end() ? kEverybody : found->second;
  }
  // Returns the root's number if it is in use: what is there of it is for the caller to hand over.
  std::optional<std::uint32_t> assign(const Key& key, Tenant tenant) {
    if (tenant == kEverybody) {
      tenants_.erase(key);
    } else {
      tenants_[key] = tenant;
    }
    const auto found = numbers_.find(key);
    return found == numbers_.end() ? std::nullopt : std::optional(found->second);
  }

  std::size_t num_bytes() const noexcept {
    return roots_.capacity() * sizeof(Root) + (numbers_.size() + tenants_.size()) * kNodeBytes;
  }

 private:
  // Out of line: every run that leaves comes past here, and hardly any is its root's last.
  [[gnu::noinline]] void forget(std::uint32_t number) {
    numbers_.erase(roots_[number].key);
    unused_.push_back(number);
  }

  static constexpr std::size_t kNodeBytes = 56;  // a node of std::unordered_map and its bucket
  struct Root {
    Key key;
    std::uint32_t num_uses;
  };
  std::unordered_map<Key, std::uint32_t, KeyHash> numbers_;
  std::unordered_map<Key, Tenant, KeyHash> tenants_;  // of roots that are somebody's, in use or not
  std::vector<Root> roots_;
  std::vector<std::uint32_t> unused_;
};

}  // namespace tiercel
