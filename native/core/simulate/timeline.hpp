// Events in order of time, and among equal times in the order in which they were asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <stdexcept>
#include <vector>

namespace tiercel {

struct TimelineEvent {
  enum class Kind : std::uint8_t { kOuter, kWake, kArrival };

  double time_s;
  std::uint64_t number;  // in the order of asking, from 1 on
  Kind kind;
  std::size_t index;  // of what it is about, among others of its kind

  bool operator>(const TimelineEvent& other) const noexcept {
    return time_s != other.time_s ? time_s > other.time_s : number > other.number;
  }
};

class Timeline {
 public:
  double now_s() const noexcept { return now_s_; }

  // Returns the event's number. std::invalid_argument: the time is past, or none.
  std::uint64_t at(double time_s, TimelineEvent::Kind kind, std::size_t index) {
    if (!(time_s >= now_s_)) throw std::invalid_argument("an event was asked for at a time that is past");
    events_.push({time_s, ++number_, kind, index});
    return number_;
  }
  bool is_empty() const noexcept { return events_.empty(); }
  // Moves on to the next event; there must be one.
  TimelineEvent pop() {
    const TimelineEvent event = events_.top();
    events_.pop();
    now_s_ = event.time_s;
    return event;
  }

 private:
  double now_s_ = 0;
  std::uint64_t number_ = 0;
  std::priority_queue<TimelineEvent, std::vector<TimelineEvent>, std::greater<>> events_;
};

}  // namespace tiercel
