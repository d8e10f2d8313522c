// What steers the simulated disk; `tests/helpers/simulated_disk.py` calls it.
//
//   sim_start      names the directory and seeds the generator
//   sim_set_rates  how often each fault happens from now on
//   sim_crash_in   after so many calls that change files, every call fails: the process is as good as killed. The call
//                  that it happens in may leave a part of its bytes.
//   sim_revive     calls work again, on what a kill leaves (everything written) or a power cut leaves (what was synced,
//                  and any part of the rest)
#include "disk.hpp"

using namespace tiercel::simulation;

SIMULATED void sim_start(const char* directory, const char* stash, std::uint64_t seed) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  sim.directory = std::string(directory) + "/";
  sim.shadow = std::make_unique<Shadow>(stash);
  sim.random = Random(seed);
  sim.started = true;
}

SIMULATED void sim_set_rates(const std::uint32_t* per_million, std::uint32_t stall_us) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  for (std::size_t fault = 0; fault < kNumFaults; ++fault) sim.rates[fault] = per_million[fault];
  sim.stall_us = stall_us;
}

SIMULATED void sim_counts(std::uint64_t* counts) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  for (std::size_t fault = 0; fault < kNumFaults; ++fault) counts[fault] = sim.counts[fault];
}

SIMULATED void sim_crash_in(std::uint64_t num_calls) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  sim.crash_in = num_calls;
}

SIMULATED bool sim_is_dead() { return disk().is_dead; }

SIMULATED void sim_revive(bool cut_power) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  sim.is_dead = false;
  sim.crash_in = 0;
  if (cut_power) sim.shadow->cut_power(sim.random);
}
