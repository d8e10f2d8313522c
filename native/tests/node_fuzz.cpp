// Says everything to a node's front that a seed thinks of, for as long as is asked, from peers that keep no rule.
//
//   node_fuzz SECONDS [SEED]
//
// Nothing may crash or hang it, make it keep more than its limits, disturb a client that keeps the rules, break the
// index or leave a pin behind. Meant to be built with the sanitizers.
#include <sys/resource.h>

#include <bit>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <random>
#include <set>
#include <vector>

#include "check.hpp"
#include "node_samples.hpp"
#include "random.hpp"

namespace {

using namespace tiercel;
using node::Descriptor;
using node::FrontEvent;
using testing::Random;
using Datagram = std::vector<std::byte>;

constexpr std::uint64_t kGoodClient = 1000;
constexpr std::uint64_t kNumClients = 4;  // that keep no rule
constexpr std::size_t kPeersMax = 24;
constexpr double kLookupSecondsMax = 10;
constexpr std::uint32_t kNumSlots = 2000;

node::FrontLimits small_limits() {
  node::FrontLimits limits;
  limits.client = {.lookups = 8, .sequences = 6, .keys = std::size_t{1} << 16, .roots = 3};
  limits.clients = 6;
  limits.connections = kPeersMax + 4;
  limits.inbox_messages = 4;
  limits.inbox_bytes = 100'000;
  limits.outbox_bytes = 100'000;
  limits.looked = 10;
  limits.read_tier = 0;
  return limits;
}

template <typename Value>
void append(Datagram& datagram, const Value& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  datagram.insert(datagram.end(), bytes.begin(), bytes.end());
}

// A number that is likely to be near some limit.
std::uint32_t edgy(Random& random) {
  switch (random.below(5)) {
    case 0:
      return ~std::uint32_t{0} - static_cast<std::uint32_t>(random.below(3));
    case 1:
      return std::uint32_t{1} << random.below(32);
    case 2:
      return static_cast<std::uint32_t>(random.below(5000));
    default:
      return static_cast<std::uint32_t>(random.below(8));
  }
}

class Talk {
 public:
  explicit Talk(Random& random) : random_(random), stored_(testing::node_sequence(600)) { stored_->hash_to(600); }

  Sequence& stored() { return *stored_; }

  Datagram make() {
    constexpr std::array kKinds{node::Kind::kMessage, node::Kind::kKeys,  node::Kind::kLookup,
                                node::Kind::kLookup,  node::Kind::kOpen,  node::Kind::kRelease,
                                node::Kind::kForget,  node::Kind::kFound, node::Kind::kRead};
    const node::Kind kind = kKinds[random_.below(kKinds.size())];
    Datagram datagram;
    append(datagram, node::header_of(kind));
    const auto sequence = static_cast<std::uint32_t>(random_.below(8));
    switch (kind) {
      case node::Kind::kKeys:
        append(datagram, node::KeysHead{sequence, first_block()});
        append_keys(datagram);
        break;
      case node::Kind::kLookup:
        append(datagram, node::LookupHead{edgy(random_), sequence, edgy(random_), edgy(random_), first_block()});
        append_keys(datagram);
        break;
      case node::Kind::kOpen:
        append(datagram, sequence);
        append(datagram, random_.below(20) == 0 ? Key{} : testing::kNodeRoot);
        break;
      case node::Kind::kRead: {
        const double seconds = random_.below(4) == 0 ? std::bit_cast<double>(random_.next()) : 0.5;
        append(datagram, node::ReadBody{edgy(random_), edgy(random_), edgy(random_), 0, random_.below(200), seconds});
        break;
      }
      case node::Kind::kRelease:
        for (std::uint64_t left = random_.below(50); left > 0; --left) append(datagram, random_.below(200));
        break;
      default:
        for (std::uint64_t left = random_.below(50); left > 0; --left) append(datagram, edgy(random_));
    }
    if (random_.below(4) == 0) damage(datagram);
    return datagram;
  }

 private:
  std::uint32_t first_block() { return random_.below(3) == 0 ? edgy(random_) : 0; }

  void append_keys(Datagram& datagram) {
    const std::size_t first = random_.below(4) == 0 ? random_.below(600) : 0;
    const std::size_t num_keys = random_.below(601 - first);
    for (std::size_t block = first; block < first + num_keys; ++block) append(datagram, stored_->parent_key(block + 1));
    for (std::uint64_t left = random_.below(40) == 0 ? random_.below(5000) : 0; left > 0; --left) {
      append(datagram, random_.next());
      append(datagram, random_.next());
    }
  }

  void damage(Datagram& datagram) {
    switch (random_.below(4)) {
      case 0:
        datagram.resize(random_.below(datagram.size() + 1));
        break;
      case 1:
        datagram.resize(datagram.size() + random_.below(200'000));
        break;
      case 2:
        for (std::uint64_t left = random_.below(20); left > 0; --left) {
          datagram[random_.below(datagram.size())] = static_cast<std::byte>(random_.next());
        }
        break;
      default:
        datagram[random_.below(4)] = static_cast<std::byte>(random_.next());
    }
  }

  Random& random_;
  const std::unique_ptr<Sequence> stored_;
};

class Round {
 public:
  explicit Round(std::uint64_t seed) : random_(seed), talk_(random_), sample_(small_limits(), kNumSlots) {}

  void run() {
    testing::store(*sample_.index, talk_.stored());
    const Descriptor good = sample_.join(kGoodClient);
    node::NodeCall call(good.number());
    for (std::uint64_t step = 0; step < 400; ++step) {
      act();
      if (step % 40 == 39) check_good_client(call, static_cast<std::uint32_t>(step));
    }
    peers_.clear();
    for (std::uint64_t client = 0; client < kNumClients; ++client) sample_.drop(client);
    sample_.drop(kGoodClient);
    CHECK(testing::num_pinned(*sample_.index) == 0);
    Index::Lock lock(sample_.index->mutex());
    CHECK(sample_.index->check(lock).empty());
  }

 private:
  void act() {
    const std::uint64_t what = random_.below(100);
    if (peers_.empty() || (what < 5 && peers_.size() < kPeersMax)) {
      peers_.push_back(testing::dial(sample_.path));
    } else if (what < 75) {
      talk(peers_[random_.below(peers_.size())]);
    } else if (what < 78) {
      peers_.erase(peers_.begin() + static_cast<std::ptrdiff_t>(random_.below(peers_.size())));
    } else if (what < 82) {  // most read nothing
      std::vector<std::byte> buffer(node::kDatagramBytesMax);
      node::receive_now(peers_[random_.below(peers_.size())].number(), buffer);
    } else {
      play_node();
    }
  }

  void talk(const Descriptor& peer) {
    const Datagram datagram = talk_.make();
    const node::Bytes part(datagram);
    std::vector<Descriptor> files;
    if (random_.below(10) == 0) files.push_back(node::duplicate(peer.number()));
    node::send_now(peer.number(), {&part, 1}, files);
  }

  void play_node() {
    const std::uint64_t what = random_.below(20);
    if (what < 10) {
      for (const FrontEvent& event : sample_.next(0)) note(event);
      return;
    }
    node::NodeFront::Lock lock(sample_.front.mutex());
    const std::uint64_t client = random_.below(kNumClients);
    const std::uint64_t connection = random_.below(last_connection_ + 2);
    if (what < 15 && connection > 2) {  // the first two are the good client's
      const std::vector<std::byte> datagram(random_.below(60'000));
      const std::array files{0};
      sample_.front.send(lock, connection, datagram, std::span(files).first(random_.below(2)));
    } else if (what == 15 && connection > 2) {
      sample_.front.cut(lock, connection);
    } else if (what == 16) {
      sample_.front.take_match(lock, client, random_.below(200));
    } else if (what == 17) {
      sample_.front.sequence(lock, client, static_cast<std::uint32_t>(random_.below(8)));
    } else if (what == 18) {
      const auto dropped = sample_.front.drop_client(lock, client);
    } else {
      const node::ClientUse use = sample_.front.use_of(lock, client);
      CHECK(use.lookups <= 8 && use.sequences <= 6 && use.keys <= (std::size_t{1} << 16));
    }
  }

  void note(const FrontEvent& event) {
    if (event.kind == FrontEvent::Kind::kLeft) CHECK(connected_.erase(event.connection) == 1);
    if (event.kind == FrontEvent::Kind::kMessage) CHECK(connected_.contains(event.connection));
    if (event.kind != FrontEvent::Kind::kConnected) return;
    CHECK(connected_.insert(event.connection).second);
    last_connection_ = event.connection;
    node::NodeFront::Lock lock(sample_.front.mutex());
    const std::uint64_t client = random_.below(kNumClients);
    // Of a client that is not known yet, the first connection is not for calls.
    const bool calls = !known_.insert(client).second;
    try {
      sample_.front.admit(lock, event.connection, client, calls);
    } catch (const std::invalid_argument&) {
      known_.erase(client);  // dropped meanwhile
    }
    sample_.front.allow_root(lock, client, testing::kNodeRoot);
  }

  void check_good_client(node::NodeCall& call, std::uint32_t number) {
    const auto started = std::chrono::steady_clock::now();
    const auto sequence = testing::node_sequence(600);
    const node::NodeFound found = call.lookup(*sequence, {number, 0, 600, 0, kLookupSecondsMax});
    CHECK(found.state != node::FoundState::kUnknownSequence);
    if (found.state == node::FoundState::kOk) CHECK(found.matched_blocks == 600);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    CHECK(seconds.count() < kLookupSecondsMax);
  }

  Random random_;
  Talk talk_;
  testing::FrontSample sample_;
  std::vector<Descriptor> peers_;
  std::set<std::uint64_t> connected_;
  std::set<std::uint64_t> known_;      // clients
  std::uint64_t last_connection_ = 2;  // the good client's
};

std::ptrdiff_t num_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}

}  // namespace

int main(int count, char** words) {
  const double seconds = count > 1 ? std::strtod(words[1], nullptr) : 1;
  const std::uint64_t first = count > 2 ? std::strtoull(words[2], nullptr, 10) : std::uint64_t{std::random_device{}()};
  std::printf("node_fuzz: seed %llu\n", static_cast<unsigned long long>(first));
  const std::ptrdiff_t num_open = num_descriptors();
  const auto stop = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::uint64_t rounds = 0;
  for (; std::chrono::steady_clock::now() < stop && testing::failures == 0; ++rounds) {
    const std::uint64_t seed = first + rounds;
    try {
      Round(seed).run();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "threw: %s\n", error.what());
      ++testing::failures;
    }
    CHECK(num_descriptors() == num_open);
    if (testing::failures != 0) {
      std::fprintf(stderr, "repeat with: node_fuzz 0.001 %llu\n", static_cast<unsigned long long>(seed));
    }
  }
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  std::printf("node_fuzz: %llu rounds, %ld MiB at most\n", static_cast<unsigned long long>(rounds),
              used.ru_maxrss >> 10);
  CHECK(used.ru_maxrss < (1 << 20));  // KiB
  return testing::failures == 0 ? 0 : 1;
}
