#include <atomic>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "check.hpp"
#include "node_samples.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using node::FrontEvent;
using node::NodeCall;
using node::NodeFound;
using testing::FrontSample;
using testing::Random;

TEST(a_sequence_of_keys_has_those_keys_and_takes_no_tokens) {
  Random random(testing::seed());
  const auto tokens = testing::node_sequence(700);
  std::vector<Key> keys(700);
  tokens->copy_keys(0, 700, keys.data());
  Sequence sequence(testing::kNodeRoot, 16, 5, Sequence::Source::kKeys);
  CHECK(sequence.num_blocks() == 0 && sequence.origin() == 5);
  for (std::size_t done = 0; done < keys.size();) {
    const std::size_t num_keys = std::min<std::size_t>(random.below(200), keys.size() - done);
    sequence.append_keys(std::span(keys).subspan(done, num_keys));
    done += num_keys;
    CHECK(sequence.num_hashed_blocks() == done && sequence.num_tokens() == 16 * done);
  }
  std::vector<Key> copied(700);
  sequence.copy_keys(0, 700, copied.data());
  CHECK(copied == keys);
  CHECK(sequence.parent_key(1) == keys[0] && sequence.parent_key(0) == testing::kNodeRoot);
  CHECK_THROWS(std::invalid_argument, sequence.extend(std::vector<std::int32_t>{1}));
  CHECK_THROWS(std::invalid_argument, tokens->append_keys(keys));
}

TEST(many_clients_look_up_while_blocks_come_and_go) {
  constexpr std::size_t kNumClients = 4;
  constexpr int kNumLookups = 200;
  FrontSample sample({});
  std::vector<node::Descriptor> peers;
  for (std::uint64_t client = 0; client < kNumClients; ++client) peers.push_back(sample.join(client));
  std::atomic<std::size_t> num_running = kNumClients;
  std::vector<std::thread> clients;
  for (std::size_t client = 0; client < kNumClients; ++client) {
    clients.emplace_back([&, client] {
      Random random(testing::seed() + client);
      NodeCall call(peers[client].number());
      for (std::uint32_t number = 0; number < kNumLookups; ++number) {
        const auto sequence = testing::node_sequence(1 + random.below(1500));
        const std::size_t limit = random.below(1600);
        const NodeFound found = call.lookup(*sequence, {number, 0, limit, 0, testing::kPatienceS});
        CHECK(found.state == node::FoundState::kOk);
        CHECK(found.matched_blocks <= std::min(limit, sequence->num_blocks()));
        CHECK((found.lookup != 0) == (found.matched_blocks != 0));
        const node::Header header = node::header_of(node::Kind::kRelease);
        std::array<std::byte, 12> release;
        std::memcpy(release.data(), header.data(), header.size());
        std::memcpy(release.data() + header.size(), &found.lookup, sizeof found.lookup);
        if (random.below(4) != 0) call.send(release, testing::kPatienceS);
      }
      --num_running;
    });
  }
  std::thread node([&] {
    std::size_t num_looked = 0;
    while (num_running != 0) {
      for (const FrontEvent& event : sample.next(0.01)) {
        num_looked += event.kind == FrontEvent::Kind::kLooked;
        if (event.kind == FrontEvent::Kind::kLooked) CHECK(event.matched_blocks <= event.sequence->num_blocks());
      }
    }
    CHECK(num_looked > 0);
  });
  while (num_running != 0) {
    testing::store(*sample.index, *testing::node_sequence(1200));
    Index::Lock lock(sample.index->mutex());
    sample.index->evict(lock, 0, {.num_blocks = 900});
  }
  for (std::thread& client : clients) client.join();
  node.join();
  for (std::uint64_t client = 0; client < kNumClients; ++client) sample.drop(client);
  CHECK(testing::num_pinned(*sample.index) == 0);
  Index::Lock lock(sample.index->mutex());
  CHECK(sample.index->check(lock).empty());
}

TEST(a_front_that_is_destroyed_releases_every_pin_and_ends_every_call) {
  std::shared_ptr<Index> index;
  std::thread waiting;
  {
    FrontSample sample({});
    index = sample.index;
    testing::store(*index, *testing::node_sequence(100));
    const node::Descriptor peer = sample.join(1);
    auto call = std::make_shared<NodeCall>(peer.number());
    CHECK(call->lookup(*testing::node_sequence(100), {1, 0, 100, 0, testing::kPatienceS}).lookup != 0);
    CHECK(testing::num_pinned(*index) == 100);
    waiting = std::thread([call] {
      const node::Header header = node::header_of(node::Kind::kMessage);
      std::array<std::byte, 5> message{};
      std::memcpy(message.data(), header.data(), header.size());
      CHECK_THROWS(std::system_error, call->request(message, testing::kPatienceS));
    });
    sample.wait_for(FrontEvent::Kind::kMessage);
  }
  waiting.join();
  CHECK(testing::num_pinned(*index) == 0);
}

TEST(closing_a_call_ends_whoever_waits_on_it) {
  FrontSample sample({});
  const node::Descriptor peer = sample.join(1);
  NodeCall call(peer.number());
  std::thread closing([&] {
    sample.wait_for(FrontEvent::Kind::kMessage);
    call.close();
  });
  const node::Header header = node::header_of(node::Kind::kMessage);
  std::array<std::byte, 5> message{};
  std::memcpy(message.data(), header.data(), header.size());
  CHECK_THROWS(std::system_error, call.request(message, testing::kPatienceS));
  closing.join();
  CHECK_THROWS(std::system_error, call.send(message, testing::kPatienceS));
}

}  // namespace
}  // namespace tiercel
