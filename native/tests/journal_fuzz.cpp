// Damages sound journals in every way that a seed thinks of, for as long as is asked, and recovers them.
//
//   journal_fuzz SECONDS [SEED]
//
// No damage may crash or hang a recovery, make it allocate without bound, yield a mapping that was never recorded or
// lies out of range, or leave a journal that cannot be used. Meant to be built with the address and undefined-behaviour
// sanitizers.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "check.hpp"
#include "journal_samples.hpp"

namespace {

using tiercel::disk::Journal;
using tiercel::disk::KeyBytes;
using tiercel::disk::Mapping;
using tiercel::disk::Replay;
using tiercel::testing::Mappings;
using tiercel::testing::Random;
using Bytes = std::vector<char>;
using Recorded = std::set<std::tuple<KeyBytes, std::uint32_t, std::uint64_t>>;  // key, slot, checksum

constexpr std::uint32_t kNumSlots = 40;
constexpr double kRecoverySecondsMax = 10;

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::filesystem::path& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// One change, as a failing disk, a torn write or an ill-meaning hand would make it.
void damage(Bytes& bytes, const Bytes& other, Random& random) {
  const std::size_t at = random.below(bytes.size() + 1);
  const std::size_t length = std::min<std::size_t>(1 + random.below(80), bytes.size() - at);
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const auto end = begin + static_cast<std::ptrdiff_t>(length);
  switch (random.below(8)) {
    case 0:  // a flipped bit
      if (length > 0) *begin = static_cast<char>(*begin ^ (1 << random.below(8)));
      break;
    case 1:  // a torn tail
      bytes.erase(begin, bytes.end());
      break;
    case 2:  // a hole
      bytes.erase(begin, end);
      break;
    case 3:  // garbage
      std::generate(begin, end, [&] { return static_cast<char>(random.next()); });
      break;
    case 4:  // a sector that was never written
      std::fill(begin, end, char{0});
      break;
    case 5: {  // a piece of another file, or of this one
      const Bytes source = random.below(2) == 0 ? other : bytes;
      const std::size_t from = random.below(source.size() + 1);
      const std::size_t count = random.below(source.size() - from + 1);
      const auto first = source.begin() + static_cast<std::ptrdiff_t>(from);
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), first, first + static_cast<std::ptrdiff_t>(count));
      break;
    }
    case 6: {  // a length or a slot at its limit
      const std::uint32_t value = random.below(2) == 0 ? ~std::uint32_t{0} : std::uint32_t{1} << random.below(32);
      const std::size_t place = at / 4 * 4;
      if (place + sizeof value <= bytes.size()) std::memcpy(bytes.data() + place, &value, sizeof value);
      break;
    }
    default:  // the file grows by what was allocated and not written
      bytes.resize(bytes.size() + random.below(5000));
  }
}

void check_replay(const Replay& replay, const Recorded& recorded) {
  std::set<std::uint32_t> slots;
  for (const Mapping& mapping : replay.mappings) {
    CHECK(mapping.slot < kNumSlots);
    CHECK(slots.insert(mapping.slot).second);
    CHECK(recorded.contains({mapping.key, mapping.slot, mapping.checksum}));
  }
}

void run_round(Random& random) {
  const tiercel::testing::TemporaryFolder folder;
  Recorded recorded;
  {
    Journal journal(folder.path(), kNumSlots);
    journal.recover();
    Mappings model;
    for (std::uint64_t left = 1 + random.below(40); left > 0; --left) {
      tiercel::testing::record_something(journal, model, random, kNumSlots);
      for (const auto& [slot, mapping] : model) recorded.insert({mapping.key, slot, mapping.checksum});
    }
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) return;
  for (std::uint64_t left = 1 + random.below(6); left > 0; --left) {
    const std::filesystem::path path = files[random.below(files.size())];
    Bytes bytes = read_file(path);
    damage(bytes, read_file(files[random.below(files.size())]), random);
    write_file(path, bytes);
    const std::uint64_t naming = random.below(30);
    if (naming == 0) std::filesystem::remove(path);
    if (naming == 1) write_file(folder / ("journal-" + std::to_string(random.below(9)) + ".log"), bytes);
    if (naming == 2) write_file(folder / ("checkpoint-" + std::to_string(random.next())), bytes);
    if (naming == 3) write_file(folder / "journal-18446744073709551616.log", bytes);
  }
  const auto started = std::chrono::steady_clock::now();
  Journal journal(folder.path(), kNumSlots);
  check_replay(journal.recover(), recorded);
  // It must go on from whatever was left, and what it records now must be found.
  const Mapping last{tiercel::testing::random_key(random), tiercel::testing::random_key(random), 3, random.next()};
  journal.put(last.parent, std::span(&last.key, 1), std::span(&last.slot, 1), std::span(&last.checksum, 1));
  recorded.insert({last.key, last.slot, last.checksum});
  const Replay again = tiercel::disk::replay_journal(folder.path(), kNumSlots);
  check_replay(again, recorded);
  CHECK(std::any_of(again.mappings.begin(), again.mappings.end(),
                    [&](const Mapping& mapping) { return tiercel::testing::is_same(mapping, last); }));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  CHECK(seconds.count() < kRecoverySecondsMax);
}

}  // namespace

int main(int count, char** words) {
  const double seconds = count > 1 ? std::strtod(words[1], nullptr) : 1;
  const std::uint64_t first = count > 2 ? std::strtoull(words[2], nullptr, 10) : std::uint64_t{std::random_device{}()};
  std::printf("journal_fuzz: seed %llu\n", static_cast<unsigned long long>(first));
  const auto stop = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::uint64_t rounds = 0;
  for (; std::chrono::steady_clock::now() < stop && tiercel::testing::failures == 0; ++rounds) {
    const std::uint64_t seed = first + rounds;
    try {
      Random random(seed);
      run_round(random);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "threw: %s\n", error.what());
      ++tiercel::testing::failures;
    }
    if (tiercel::testing::failures != 0) {
      std::fprintf(stderr, "repeat with: journal_fuzz 0.001 %llu\n", static_cast<unsigned long long>(seed));
    }
  }
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  std::printf("journal_fuzz: %llu damaged journals recovered, %ld MiB at most\n",
              static_cast<unsigned long long>(rounds), used.ru_maxrss >> 10);
  CHECK(used.ru_maxrss < (1 << 20));  // KiB
  return tiercel::testing::failures == 0 ? 0 : 1;
}
