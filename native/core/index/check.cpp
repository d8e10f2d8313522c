// Index::check: every invariant by brute force. For tests; it walks everything while it holds the lock.
#include <algorithm>

#include "index/index.hpp"

namespace tiercel {

class IndexCheck {
 public:
  explicit IndexCheck(const Index& index) : index_(index), tree_(index.tree_) {}

  std::string run() {
    check_shape();
    for (std::size_t tier = 0; tier < index_.tiers_.size(); ++tier) {
      check_presence(tier);
      for (std::size_t tenant = 0; tenant < tree_.num_tenants(); ++tenant) {
        check_policy(tier, static_cast<Tenant>(tenant));
      }
      check_slots(tier);
    }
    return broken_;
  }

 private:
  void expect(bool holds, const char* invariant, std::size_t number) {
    if (!holds && broken_.empty()) broken_ = std::string(invariant) + " (at " + std::to_string(number) + ")";
  }

  void check_shape() {
    std::uint32_t num_runs = 0;
    std::vector<std::uint32_t> num_listed(tree_.run_end(), 0);
    std::vector<std::uint32_t> num_children(tree_.run_end(), 0);
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      const Run& run = tree_.run(id);
      if (run.num_blocks == 0) continue;
      ++num_runs;
      std::uint32_t longest = 0;
      for (std::size_t tier = 0; tier < index_.tiers_.size(); ++tier) {
        longest = std::max(longest, tree_.tier_run(tier, id).num_present);
      }
      expect(run.num_blocks == longest, "a run ends where its longest tier ends", id);
      expect(run.num_blocks <= run.capacity, "a run fits its arrays", id);
      expect(tree_.find_child(run.parent, run.keys[0]) == id, "the table finds every run by its first key", id);
      RunId previous = kNoRun;
      for (RunId child = run.first_child; child != kNoRun; child = tree_.run(child).next_sibling) {
        expect(tree_.run(child).parent == id, "a listed child knows its parent", child);
        expect(tree_.run(child).previous_sibling == previous, "siblings are linked both ways", child);
        previous = child;
        if (++num_listed[id] > tree_.run_end()) break;
      }
      if (run.parent == kNoRun) {
        expect(run.depth == 0, "a run at the top has depth 0", id);
        continue;
      }
      const Run& parent = tree_.run(run.parent);
      ++num_children[run.parent];
      expect(parent.num_blocks != 0, "a parent is alive", id);
      expect(run.depth == parent.depth + parent.num_blocks, "a run goes on where its parent ends", id);
      expect(run.root == parent.root, "a path has one root", id);
      expect(run.priority <= parent.priority, "a run is worth no more than its parent", id);
    }
    expect(num_listed == num_children, "every child is listed once", 0);
    expect(num_runs == tree_.num_runs(), "the number of runs is right", num_runs);
  }

  void check_presence(std::size_t tier) {
    std::vector<std::uint32_t> num_children(tree_.run_end(), 0);
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      const TierRun& held = tree_.tier_run(tier, id);
      const Run& run = tree_.run(id);
      expect((held.slots == nullptr) == (held.num_present == 0), "a tier keeps slots of what it holds only", id);
      if (held.num_present == 0) continue;
      const auto num_writing = std::count_if(held.slots, held.slots + held.num_present, is_writing);
      expect(held.num_writing == static_cast<std::uint32_t>(num_writing), "the number of writing blocks is right", id);
      if (run.parent == kNoRun) continue;
      ++num_children[run.parent];
      expect(tree_.tier_run(tier, run.parent).num_present == tree_.run(run.parent).num_blocks,
             "a tier holds all of a run's parent", id);
    }
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      expect(tree_.tier_run(tier, id).num_children == num_children[id], "the number of children in a tier is right",
             id);
    }
  }

  void check_policy(std::size_t tier, Tenant tenant) {
    std::vector<bool> seen(tree_.run_end(), false);
    const EvictionPolicy& policy = tree_.policy(tier, tenant);
    std::uint32_t num_held = 0;
    std::uint8_t priority = 0;
    const RunId victim = policy.victim();
    expect(victim == kNoRun || tree_.tier_run(tier, victim).num_children == 0, "a victim is a leaf", victim);
    for (const RunId id : policy.order()) {
      expect(tree_.tier_run(tier, id).num_present != 0, "the policy knows only runs that the tier holds", id);
      expect(!seen[id], "the policy knows a run once", id);
      expect(tree_.run(id).tenant == tenant, "a policy knows only runs of its tenant", id);
      const RunId parent = tree_.run(id).parent;
      expect(parent == kNoRun || !seen[parent], "the policy evicts children before parents", id);
      expect(tree_.run(id).priority >= priority, "what has a low priority leaves first", id);
      priority = tree_.run(id).priority;
      seen[id] = true;
    }
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      const std::uint32_t num_present = tree_.tier_run(tier, id).num_present;
      if (num_present == 0 || tree_.run(id).tenant != tenant) continue;
      num_held += num_present;
      expect(seen[id], "the policy knows every run of the tier", id);
      expect(tree_.tenant_of(tree_.root(id)) == tenant, "a run is its root's tenant's", id);
    }
    expect(num_held == tree_.share(tier, tenant).num_held, "the number of a tenant's blocks is right", tenant);
  }

  void check_slots(std::size_t tier) {
    const SlotTable& slots = index_.tiers_[tier].slots;
    std::vector<bool> used = slots.free_slots();
    const auto num_free = static_cast<std::uint32_t>(std::count(used.begin(), used.end(), true));
    expect(num_free == slots.num_free(), "the number of free slots is right", tier);
    std::vector<std::uint32_t> num_live(index_.reservations_.size(), 0);
    std::uint32_t num_ready = 0;
    std::uint32_t num_ready_pinned = 0;
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      const TierRun& held = tree_.tier_run(tier, id);
      for (std::uint32_t at = 0; at < held.num_present; ++at) {
        const Slot slot = held.slots[at] & kSlotMask;
        expect(slot < slots.num_slots() && !used[slot], "a slot holds one block and is not free", slot);
        used[slot] = true;
        if (is_writing(held.slots[at])) {
          check_writer(slots.reservation_of(slot), id, at, num_live);
        } else {
          ++num_ready;
          num_ready_pinned += slots.is_pinned(slot);
        }
      }
    }
    std::uint32_t num_writing = 0;
    for (std::size_t number = 0; number < num_live.size(); ++number) {
      const Index::OpenReservation& open = index_.reservations_[number];
      if (open.tier != tier) continue;
      num_writing += open.num_blocks;
      expect(open.num_live == num_live[number], "a reservation's living blocks are in the tree", number);
    }
    expect(num_ready == slots.num_ready(), "the number of ready slots is right", tier);
    expect(num_writing == slots.num_writing(), "the number of reserved slots is right", tier);
    expect(num_ready_pinned <= slots.num_pinned(), "the number of pinned slots is right", tier);
    const std::uint32_t num_kept_by_pins = slots.num_pinned() - num_ready_pinned;
    expect(num_free + num_ready + num_writing + num_kept_by_pins == slots.num_slots(), "no slot is lost", tier);
  }

  void check_writer(std::size_t number, RunId id, std::uint32_t at, std::vector<std::uint32_t>& num_live) {
    if (number >= num_live.size()) return expect(false, "a writing slot names its reservation", number);
    const Index::OpenReservation& open = index_.reservations_[number];
    const std::uint32_t block = tree_.run(id).depth + at;
    ++num_live[number];
    expect(block >= open.first_block && block < open.first_block + open.num_live,
           "a writing block is one of its reservation's", id);
    if (block + 1 == open.first_block + open.num_live) {
      expect(open.last_run == id, "a reservation knows the run of its last block", id);
    }
  }

  const Index& index_;
  const RunTree& tree_;
  std::string broken_;
};

std::string Index::check(Lock&) const { return IndexCheck(*this).run(); }

}  // namespace tiercel
