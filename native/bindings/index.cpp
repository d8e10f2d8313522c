// Python's view of the index.
#include "index/index.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "arrays.hpp"
#include "bindings.hpp"
#include "match_handle.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using KeysOut = nb::ndarray<nb::numpy, std::uint8_t, nb::shape<-1, Key::kNumBytes>>;
using SlotsOut = nb::ndarray<nb::numpy, Slot, nb::shape<-1>>;
using BytesOut = nb::ndarray<nb::numpy, std::uint8_t, nb::shape<-1>>;
using FlagsOut = nb::ndarray<nb::numpy, bool, nb::shape<-1>>;
using KeysIn = nb::ndarray<const std::uint8_t, nb::shape<-1, Key::kNumBytes>, nb::c_contig, nb::device::cpu>;

constexpr std::size_t kBlocksHashedHeld = 32;  // the hashing of more takes longer than a few microseconds
constexpr std::size_t kLongWork = std::numeric_limits<std::size_t>::max();

std::size_t work_on(const Sequence& sequence, std::size_t limit_blocks) {
  const std::size_t num_blocks = std::min(sequence.num_blocks(), limit_blocks);
  return num_blocks > sequence.num_hashed_blocks() + kBlocksHashedHeld ? kLongWork : num_blocks;
}

template <typename Array, typename Value>
Array to_array(std::vector<Value> values, std::size_t width) {
  using Item = typename Array::Scalar;
  auto* kept = new std::vector<Value>(std::move(values));
  nb::capsule owner(kept, [](void* pointer) noexcept { delete static_cast<std::vector<Value>*>(pointer); });
  auto* items = reinterpret_cast<Item*>(kept->data());
  if constexpr (std::is_same_v<Array, KeysOut>) {
    return Array(items, {kept->size(), width}, owner);
  } else {
    return Array(items, {kept->size()}, owner);
  }
}

SlotsOut slots_out(std::vector<Slot> slots) { return to_array<SlotsOut>(std::move(slots), 1); }
KeysOut keys_out(std::vector<Key> keys) { return to_array<KeysOut>(std::move(keys), Key::kNumBytes); }

// As plans carry them, little endian: an array would take ten times as long to make, and be copied from.
nb::bytes packed(std::span<const Slot> slots) {
  if constexpr (std::endian::native == std::endian::little) return nb::bytes(slots.data(), slots.size_bytes());
  std::vector<std::uint8_t> bytes;
  for (const Slot slot : slots) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(slot >> shift));
  }
  return nb::bytes(bytes.data(), bytes.size());
}

nb::bytes packed(std::span<const Key> keys) { return nb::bytes(keys.data(), keys.size_bytes()); }

FlagsOut flags_out(const std::vector<bool>& flags) {
  auto* kept = new bool[flags.size()];
  nb::capsule owner(kept, [](void* pointer) noexcept { delete[] static_cast<bool*>(pointer); });
  std::copy(flags.begin(), flags.end(), kept);
  return FlagsOut(kept, {flags.size()}, owner);
}

std::span<const Key> keys_in(const KeysIn& keys) { return {reinterpret_cast<const Key*>(keys.data()), keys.shape(0)}; }

std::size_t limit_of(std::optional<std::size_t> limit_blocks) { return limit_blocks.value_or(kLongWork); }

void check_tier(const Index& index, std::size_t tier) {
  if (tier < index.num_tiers()) return;
  throw std::invalid_argument("tier: the index has " + std::to_string(index.num_tiers()) + " tiers, not number " +
                              std::to_string(tier));
}

// Releases what it holds as `Reservation` does, but never waits for the lock with the GIL held.
struct ReservationHandle {
  Reservation reservation;

  explicit ReservationHandle(Reservation&& made) : reservation(std::move(made)) {}
  ReservationHandle(ReservationHandle&&) = default;
  ~ReservationHandle() {
    if (reservation.is_open()) {
      Index& index = reservation.index();
      locked(index, reservation.slots.size(), [&](Index::Lock& lock) { index.abort(lock, reservation); });
    }
    release();
  }

  void release() {
    if (!reservation.has_pins()) return;
    Index& index = reservation.index();
    locked(index, reservation.slots.size(), [&](Index::Lock& lock) { index.release(lock, reservation); });
  }
};

MatchHandle match(Index& index, Sequence& sequence, std::optional<std::size_t> limit_blocks, bool touch, double now_s) {
  const std::size_t limit = limit_of(limit_blocks);
  return MatchHandle(locked(index, work_on(sequence, limit),
                            [&](Index::Lock& lock) { return index.match(lock, sequence, limit, touch, now_s); }));
}

ReservationHandle reserve(Index& index, Sequence& sequence, std::size_t tier, std::int64_t owner,
                          std::size_t first_block, std::optional<std::size_t> limit_blocks, double now_s,
                          int priority) {
  check_tier(index, tier);
  if (priority < 0 || priority > kPriorityMax) {
    throw std::invalid_argument("priority: 0 to " + std::to_string(kPriorityMax) + ", not " + std::to_string(priority));
  }
  const std::size_t limit = std::min(limit_of(limit_blocks), sequence.num_blocks());
  if (work_on(sequence, limit) == kLongWork) {
    const nb::gil_scoped_release release;
    sequence.hash_to(limit);
  } else {
    sequence.hash_to(limit);
  }
  const ReserveOptions options{owner, std::min(first_block, limit), limit, now_s, static_cast<std::uint8_t>(priority)};
  return ReservationHandle(
      locked(index, limit, [&](Index::Lock& lock) { return index.reserve(lock, sequence, tier, options); }));
}

nb::object demote(Index& index, std::size_t source, std::size_t target, std::int64_t owner, std::size_t num_blocks,
                  double now_s) {
  check_tier(index, source);
  check_tier(index, target);
  if (source == target) throw std::invalid_argument("source and target must be two tiers");
  std::optional<Demotion> demotion = locked(index, num_blocks, [&](Index::Lock& lock) {
    return index.demote(lock, source, target, owner, num_blocks, now_s);
  });
  if (!demotion) return nb::none();
  return nb::make_tuple(MatchHandle(std::move(demotion->match)), ReservationHandle(std::move(demotion->reservation)));
}

// One for all calls, as it cannot be written to: most commits void nothing. Lives as long as the process.
nb::handle no_slots;

nb::object commit(Index& index, ReservationHandle& handle, const std::optional<Vector<bool>>& failed) {
  Reservation& reservation = handle.reservation;
  if (reservation.is_open() && &reservation.index() != &index) {
    throw std::invalid_argument("reservation: it belongs to another index");
  }
  std::span<const bool> flags;
  if (failed) {
    if (failed->shape(0) != reservation.slots.size()) {
      throw std::invalid_argument("failed: one flag for each of the reservation's " +
                                  std::to_string(reservation.slots.size()) + " blocks");
    }
    flags = as_span(*failed);
  }
  std::vector<Slot> voided = locked(index, reservation.slots.size(),
                                    [&](Index::Lock& lock) { return index.commit(lock, reservation, flags); });
  return voided.empty() ? nb::borrow(no_slots) : nb::cast(slots_out(std::move(voided)));
}

nb::tuple take_changes(Index& index) {
  Changes changes = locked(index, 0, [&](Index::Lock& lock) { return index.take_changes(lock); });
  return nb::make_tuple(to_array<BytesOut>(std::move(changes.kinds), 1),
                        to_array<BytesOut>(std::move(changes.tiers), 1), keys_out(std::move(changes.keys)),
                        changes.is_incomplete);
}

nb::tuple export_blocks(Index& index, std::size_t tier) {
  check_tier(index, tier);
  ExportedBlocks blocks = locked(index, kLongWork, [&](Index::Lock& lock) { return index.export_blocks(lock, tier); });
  return nb::make_tuple(keys_out(std::move(blocks.parents)), keys_out(std::move(blocks.keys)),
                        slots_out(std::move(blocks.slots)));
}

FlagsOut restore_blocks(Index& index, std::size_t tier, const KeysIn& parents, const KeysIn& keys,
                        const Vector<Slot>& slots, const KeysIn& roots) {
  check_tier(index, tier);
  if (parents.shape(0) != keys.shape(0) || slots.shape(0) != keys.shape(0)) {
    throw std::invalid_argument("parents, keys and slots must be of one length");
  }
  const RestoredBlocks blocks{keys_in(parents), keys_in(keys), as_span(slots)};
  return flags_out(locked(index, kLongWork,
                          [&](Index::Lock& lock) { return index.restore_blocks(lock, tier, blocks, keys_in(roots)); }));
}

void check(Index& index) {
  const std::string broken = locked(index, kLongWork, [&](Index::Lock& lock) { return index.check(lock); });
  if (broken.empty()) return;
  PyErr_SetString(PyExc_AssertionError, broken.c_str());
  throw nb::python_error();
}

// Reserves and limits, per tier.
using TenantIn = std::pair<std::vector<std::uint32_t>, std::vector<std::uint32_t>>;

void assign(Index& index, const nb::bytes& root, std::size_t tenant) {
  if (root.size() != Key::kNumBytes) {
    throw std::invalid_argument("root: " + std::to_string(Key::kNumBytes) + " bytes, not " +
                                std::to_string(root.size()));
  }
  Key key;
  std::memcpy(key.bytes.data(), root.data(), Key::kNumBytes);
  locked(index, kLongWork, [&](Index::Lock& lock) { index.assign(lock, key, tenant); });
}

nb::tuple shares(Index& index, std::size_t tier) {
  check_tier(index, tier);
  nb::list found;
  for (const TenantShare& share : locked(index, 0, [&](Index::Lock& lock) { return index.shares(lock, tier); })) {
    found.append(nb::cast(share));
  }
  return nb::tuple(found);
}

std::shared_ptr<Index> make_index(std::vector<std::uint32_t> capacities,
                                  const std::optional<std::vector<std::string>>& policies,
                                  std::optional<std::vector<std::uint32_t>> evict_batch,
                                  std::uint32_t slru_protected_hits, double hit_reward_s,
                                  std::uint32_t tokens_per_block, const std::vector<TenantIn>& tenants) {
  IndexOptions options;
  for (const auto& [reserves, limits] : tenants) options.tenants.push_back({reserves, limits});
  const PolicyOptions policy{"lru", slru_protected_hits, hit_reward_s, tokens_per_block};
  options.policies.assign(policies ? policies->size() : capacities.size(), policy);
  for (std::size_t tier = 0; policies && tier < policies->size(); ++tier) {
    options.policies[tier].name = (*policies)[tier];
  }
  options.capacities = std::move(capacities);
  if (evict_batch) options.evict_batch = std::move(*evict_batch);
  return Index::create(options);
}

std::span<const Slot> slots_of(const MatchHandle& handle, std::size_t start, std::optional<std::size_t> stop_or_none) {
  const std::vector<Slot>& slots = handle.match.slots();
  const std::size_t stop = stop_or_none.value_or(slots.size());
  if (start > stop || stop > slots.size()) {
    throw std::invalid_argument("[start, stop) must lie in the match's " + std::to_string(slots.size()) + " blocks");
  }
  return {slots.data() + start, stop - start};
}

SlotsOut match_slots(const MatchHandle& handle, std::size_t start, std::optional<std::size_t> stop) {
  const std::span<const Slot> slots = slots_of(handle, start, stop);
  return slots_out({slots.begin(), slots.end()});
}

nb::bytes packed_match(const MatchHandle& handle, std::size_t start, std::optional<std::size_t> stop) {
  return packed(slots_of(handle, start, stop));
}

nb::tuple match_segments(const MatchHandle& handle) {
  nb::list segments;
  for (const Segment& segment : handle.match.segments()) {
    segments.append(nb::make_tuple(segment.tier, segment.first_block, segment.num_blocks));
  }
  return nb::tuple(segments);
}

nb::tuple attached(const ReservationHandle& handle) {
  nb::list ranges;
  for (const BlockRange& range : handle.reservation.attached) {
    ranges.append(nb::make_tuple(range.first_block, range.num_blocks, range.owner));
  }
  return nb::tuple(ranges);
}

void bind_results(nb::module_& module) {
  nb::class_<IndexStats>(module, "IndexStats", nb::is_final())
      .def_ro("num_slots", &IndexStats::num_slots)
      .def_ro("num_free", &IndexStats::num_free)
      .def_ro("num_ready", &IndexStats::num_ready)
      .def_ro("num_writing", &IndexStats::num_writing)
      .def_ro("num_pinned", &IndexStats::num_pinned)
      .def_ro("num_runs", &IndexStats::num_runs)
      .def_ro("num_evicted", &IndexStats::num_evicted)
      .def_ro("evicted_age_sum_s", &IndexStats::evicted_age_sum_s)
      .def_prop_ro("evicted_age_counts",
                   [](const IndexStats& self) { return nb::tuple(nb::cast(self.evicted_age_counts)); })
      .def_ro("memory_bytes", &IndexStats::memory_bytes)
      .def_prop_ro("num_protected", [](const IndexStats& self) { return self.policy.num_protected; })
      .def_prop_ro("num_ghosts", [](const IndexStats& self) { return self.policy.num_ghosts; })
      .def_prop_ro("num_ghost_hits", [](const IndexStats& self) { return self.policy.num_ghost_hits; });

  nb::class_<TenantShare>(module, "TenantShare", nb::is_final())
      .def_ro("num_held", &TenantShare::num_held)
      .def_ro("reserve", &TenantShare::reserve)
      .def_ro("limit", &TenantShare::limit)
      .def_ro("num_evicted", &TenantShare::num_evicted);

  nb::class_<MatchHandle>(module, "Match", nb::is_final())
      .def_prop_ro("num_blocks", [](const MatchHandle& self) { return self.match.slots().size(); })
      .def_prop_ro("num_pending", [](const MatchHandle& self) { return self.match.num_pending(); })
      .def_prop_ro("generation", [](const MatchHandle& self) { return self.match.generation(); })
      .def_prop_ro("segments", &match_segments)
      .def("slots", &match_slots, nb::arg("start") = 0, nb::arg("stop") = nb::none())
      .def("packed_slots", &packed_match, nb::arg("start") = 0, nb::arg("stop") = nb::none())
      .def("truncate", &MatchHandle::truncate, nb::arg("num_blocks"))
      .def("release", [](MatchHandle& self) { self.truncate(0); });

  using Handle = const ReservationHandle&;
  nb::class_<ReservationHandle>(module, "Reservation", nb::is_final())
      .def_prop_ro("tier", [](Handle self) { return self.reservation.tier; })
      .def_prop_ro("owner", [](Handle self) { return self.reservation.owner; })
      .def_prop_ro("first_block", [](Handle self) { return self.reservation.first_block; })
      .def_prop_ro("num_blocks", [](Handle self) { return self.reservation.slots.size(); })
      .def_prop_ro("num_short", [](Handle self) { return self.reservation.num_short; })
      .def_prop_ro(
          "slots", [](Handle self) { return slots_out(self.reservation.slots); }, nb::rv_policy::automatic)
      .def_prop_ro(
          "voided", [](Handle self) { return slots_out(self.reservation.voided); }, nb::rv_policy::automatic)
      .def_prop_ro("packed_slots", [](Handle self) { return packed(self.reservation.slots); })
      .def_prop_ro("packed_voided", [](Handle self) { return packed(self.reservation.voided); })
      .def_prop_ro("packed_keys", [](Handle self) { return packed(self.reservation.keys); })
      .def_prop_ro("num_voided", [](Handle self) { return self.reservation.voided.size(); })
      .def_prop_ro("attached", &attached)
      .def_prop_ro("parent_key",
                   [](Handle self) { return nb::bytes(self.reservation.parent_key.bytes.data(), Key::kNumBytes); })
      .def("keys", [](Handle self) { return keys_out(self.reservation.keys); })
      .def("release", &ReservationHandle::release);
}

}  // namespace

void bind_index(nb::module_& module) {
  bind_results(module);
  no_slots = nb::cast(slots_out({})).release();
  module.attr("EVICTION_AGE_BOUNDS_S") = nb::tuple(nb::cast(EvictionAges::kBoundsS));
  module.attr("EVICTION_POLICIES") = nb::tuple(nb::cast(eviction_policy_names()));
  nb::class_<Index>(module, "Index", nb::is_final())
      .def(nb::new_(&make_index), nb::arg("capacities"), nb::kw_only(), nb::arg("policies") = nb::none(),
           nb::arg("evict_batch") = nb::none(), nb::arg("slru_protected_hits") = 2, nb::arg("hit_reward_s") = 0.0,
           nb::arg("tokens_per_block") = 16, nb::arg("tenants") = nb::list())
      .def("match", &match, nb::arg("sequence"), nb::kw_only(), nb::arg("limit_blocks") = nb::none(),
           nb::arg("touch") = true, nb::arg("now_s") = 0.0)
      .def("reserve", &reserve, nb::arg("sequence"), nb::arg("tier"), nb::kw_only(), nb::arg("owner"),
           nb::arg("first_block") = 0, nb::arg("limit_blocks") = nb::none(), nb::arg("now_s") = 0.0,
           nb::arg("priority") = 0)
      .def("demote", &demote, nb::arg("source"), nb::arg("target"), nb::kw_only(), nb::arg("owner"),
           nb::arg("num_blocks"), nb::arg("now_s") = 0.0)
      .def("commit", &commit, nb::arg("reservation"), nb::arg("failed").noconvert() = nb::none())
      .def(
          "drop",
          [](Index& self, Sequence& sequence, std::size_t block, std::size_t tier) {
            check_tier(self, tier);
            return slots_out(locked(self, work_on(sequence, kLongWork),
                                    [&](Index::Lock& lock) { return self.drop(lock, sequence, block, tier); }));
          },
          nb::arg("sequence"), nb::arg("block"), nb::arg("tier"))
      .def(
          "evict",
          [](Index& self, std::size_t tier, std::size_t num_blocks, double now_s, std::optional<std::size_t> kept_in,
             std::optional<std::size_t> spared_in) {
            for (const std::size_t named : {tier, kept_in.value_or(tier), spared_in.value_or(tier)}) {
              check_tier(self, named);
            }
            if (kept_in == tier || spared_in == tier) {
              throw std::invalid_argument("kept_in: another tier than the one evicted from; spared_in too");
            }
            return slots_out(locked(self, num_blocks, [&](Index::Lock& lock) {
              return self.evict(lock, tier, {num_blocks, now_s, kept_in, spared_in});
            }));
          },
          nb::arg("tier"), nb::arg("num_blocks"), nb::arg("now_s") = 0.0, nb::kw_only(),
          nb::arg("kept_in") = nb::none(), nb::arg("spared_in") = nb::none())
      .def("clear", [](Index& self) { locked(self, kLongWork, [&](Index::Lock& lock) { self.clear(lock); }); })
      .def("assign", &assign, nb::arg("root"), nb::arg("tenant"))
      .def("shares", &shares, nb::arg("tier"))
      .def_prop_ro(
          "generation",
          [](Index& self) { return locked(self, 0, [&](Index::Lock& lock) { return self.generation(lock); }); })
      .def(
          "watch",
          [](Index& self, std::size_t num_changes) {
            locked(self, 0, [&](Index::Lock& lock) { self.watch(lock, num_changes); });
          },
          nb::arg("num_changes"))
      .def("take_changes", &take_changes)
      .def("export_blocks", &export_blocks, nb::arg("tier"))
      .def("restore_blocks", &restore_blocks, nb::arg("tier"), nb::arg("parents").noconvert(),
           nb::arg("keys").noconvert(), nb::arg("slots").noconvert(), nb::arg("roots").noconvert())
      .def(
          "stats",
          [](Index& self, std::size_t tier) {
            check_tier(self, tier);
            return locked(self, 0, [&](Index::Lock& lock) { return self.stats(lock, tier); });
          },
          nb::arg("tier"))
      .def("check", &check);
}

}  // namespace tiercel::bindings
