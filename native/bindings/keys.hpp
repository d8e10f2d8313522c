// How the bindings take a key.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "key.hpp"

namespace tiercel::bindings {

inline Key to_key(const nanobind::bytes& bytes, const char* name) {
  if (bytes.size() != Key::kNumBytes) {
    throw std::invalid_argument(std::string(name) + " must have " + std::to_string(Key::kNumBytes) + " bytes, not " +
                                std::to_string(bytes.size()));
  }
  Key key;
  std::memcpy(key.bytes.data(), bytes.c_str(), Key::kNumBytes);
  return key;
}

}  // namespace tiercel::bindings
