// Python's view of the key chain: `Sequence`, `sha256_chain` and a SHA-256 for the tests of both of its paths.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "hashing/chain.hpp"
#include "hashing/sequence.hpp"
#include "keys.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using KeyArray = nb::ndarray<nb::numpy, std::uint8_t, nb::shape<-1, Key::kNumBytes>>;

// Below this many tokens or blocks, a few microseconds of work, letting go of the GIL costs more than it gives.
constexpr std::size_t kTokensHeld = 4096;
constexpr std::size_t kBlocksHeld = 32;

nb::bytes to_bytes(const Key& key) { return nb::bytes(key.bytes.data(), key.bytes.size()); }

KeyArray to_array(std::unique_ptr<Key[]> keys, std::size_t num_keys) {
  Key* data = keys.release();
  nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<Key*>(pointer); });
  return KeyArray(data, {num_keys, Key::kNumBytes}, owner);
}

Sequence::Extras to_extras(const nb::object& mapping) {
  Sequence::Extras extras;
  if (mapping.is_none()) return extras;
  for (const nb::handle item : mapping.attr("items")()) {
    std::size_t block = 0;
    nb::bytes bytes;
    if (!nb::try_cast(item[0], block) || !nb::try_cast(item[1], bytes)) {
      throw nb::type_error("extras must map block indices, ints >= 0, to bytes");
    }
    extras.emplace(block, std::string(bytes.c_str(), bytes.size()));
  }
  return extras;
}

[[noreturn]] void refuse_tokens(const nb::object& given) {
  const nb::object dtype = nb::getattr(given, "dtype", nb::none());
  const nb::object shape = nb::getattr(given, "shape", nb::none());
  std::string what = nb::str(given.type().attr("__name__")).c_str();
  if (!dtype.is_none() && !shape.is_none()) {
    const nb::object flags = nb::getattr(given, "flags", nb::none());
    const bool in_order = nb::cast<bool>(nb::getattr(flags, "c_contiguous", nb::bool_(true)));
    what += " of " + std::string(nb::str(dtype).c_str()) + ", shape " + nb::str(shape).c_str();
    if (!in_order) what += ", not contiguous";
  }
  throw nb::type_error(("tokens: " + what +
                        "; must be one axis of int32 or int64, C-contiguous, in host memory, such as "
                        "numpy.ascontiguousarray(tokens, numpy.int32).ravel(), or a list of int")
                           .c_str());
}

// Engines keep tokens as lists of Python's integers; through numpy they cost several times as much.
std::vector<std::int32_t> to_tokens(const nb::list& given) {
  std::vector<std::int32_t> tokens(given.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    PyObject* item = PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i));
    if (!PyLong_CheckExact(item)) {
      const std::string kind = nb::str(nb::handle(item).type().attr("__name__")).c_str();
      throw nb::type_error(("tokens[" + std::to_string(i) + "] is a " + kind + "; must be an int").c_str());
    }
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(item, &overflow);
    if (overflow != 0 || !std::in_range<std::int32_t>(value) || value < 0) {
      const std::string text = nb::repr(nb::handle(item)).c_str();
      throw std::invalid_argument("tokens[" + std::to_string(i) + "] = " + text + ": tokens must lie in [0, 2^31)");
    }
    tokens[i] = static_cast<std::int32_t>(value);
  }
  return tokens;
}

template <typename Token>
void extend(Sequence& sequence, const Vector<Token>& tokens, const nb::object& extras) {
  Sequence::Extras converted = to_extras(extras);
  const MaybeReleaseGil release(tokens.size() > kTokensHeld);
  sequence.extend(as_span(tokens), std::move(converted));
}

void extend(Sequence& sequence, const nb::list& given, const nb::object& extras) {
  Sequence::Extras converted = to_extras(extras);
  const std::vector<std::int32_t> tokens = to_tokens(given);
  sequence.extend(std::span(tokens), std::move(converted));
}

template <typename Tokens>
void construct(Sequence* sequence, const nb::bytes& root, std::size_t tokens_per_block, const Tokens& tokens,
               std::uint64_t origin) {
  new (sequence) Sequence(to_key(root, "root"), tokens_per_block, origin);
  try {
    extend(*sequence, tokens, nb::none());
  } catch (...) {
    sequence->~Sequence();
    throw;
  }
}

KeyArray keys(Sequence& sequence, std::size_t start, std::optional<std::size_t> stop_or_none) {
  const std::size_t stop = stop_or_none.value_or(sequence.num_blocks());
  if (start > stop || stop > sequence.num_blocks()) sequence.copy_keys(start, stop, nullptr);  // throws
  auto copied = std::make_unique_for_overwrite<Key[]>(stop - start);
  {
    const std::size_t num_hashed = sequence.num_hashed_blocks();
    const MaybeReleaseGil release(stop > num_hashed + kBlocksHeld);
    sequence.copy_keys(start, stop, copied.get());
  }
  return to_array(std::move(copied), stop - start);
}

void append_keys(Sequence& sequence, const nb::bytes& keys) {
  if (keys.size() % Key::kNumBytes != 0) {
    throw std::invalid_argument("keys: " + std::to_string(keys.size()) + " bytes are no whole number of keys");
  }
  std::vector<Key> copied(keys.size() / Key::kNumBytes);
  std::memcpy(copied.data(), keys.c_str(), keys.size());
  sequence.append_keys(copied);
}

nb::bytes parent_key(Sequence& sequence, std::size_t block) {
  Key key;
  {
    const MaybeReleaseGil release(block > sequence.num_hashed_blocks() + kBlocksHeld);
    key = sequence.parent_key(block);
  }
  return to_bytes(key);
}

KeyArray sha256_chain(const nb::bytes& root, const Vector<std::int32_t>& tokens, std::size_t tokens_per_block,
                      bool portable) {
  Sequence checked(to_key(root, "root"), tokens_per_block);
  const std::size_t num_blocks = tokens.size() / tokens_per_block;
  auto keys = std::make_unique_for_overwrite<Key[]>(num_blocks);
  {
    const nb::gil_scoped_release release;
    chain_keys(checked.root(), as_span(tokens), tokens_per_block, keys.get(),
               portable ? Sha256Path::kPortable : fastest_sha256_path());
  }
  return to_array(std::move(keys), num_blocks);
}

nb::bytes sha256(const nb::bytes& data, bool portable) {
  Sha256 hash(portable ? Sha256Path::kPortable : fastest_sha256_path());
  hash.update(std::as_bytes(std::span(data.c_str(), data.size())));
  const Sha256::Digest digest = hash.finish();
  return nb::bytes(digest.data(), digest.size());
}

}  // namespace

void bind_hashing(nb::module_& module) {
  module.attr("KEY_BYTES") = Key::kNumBytes;
  nb::class_<Sequence>(module, "Sequence", nb::is_final(), nb::is_weak_referenceable())
      .def("__init__", &construct<Vector<std::int32_t>>, nb::arg("root"), nb::arg("tokens_per_block"),
           nb::arg("tokens").noconvert(), nb::kw_only(), nb::arg("origin") = 0)
      .def("__init__", &construct<Vector<std::int64_t>>, nb::arg("root"), nb::arg("tokens_per_block"),
           nb::arg("tokens").noconvert(), nb::kw_only(), nb::arg("origin") = 0)
      .def("__init__", &construct<nb::list>, nb::arg("root"), nb::arg("tokens_per_block"), nb::arg("tokens"),
           nb::kw_only(), nb::arg("origin") = 0)
      .def(
          "__init__",
          [](Sequence* sequence, const nb::bytes& root, std::size_t tokens_per_block, const nb::object& tokens,
             std::uint64_t origin) {
            if (!tokens.is_none()) refuse_tokens(tokens);
            new (sequence) Sequence(to_key(root, "root"), tokens_per_block, origin);
          },
          nb::arg("root"), nb::arg("tokens_per_block"), nb::arg("tokens") = nb::none(), nb::kw_only(),
          nb::arg("origin") = 0)
      .def_static(
          "of_keys",
          [](const nb::bytes& root, std::size_t tokens_per_block, std::uint64_t origin) {
            return std::make_shared<Sequence>(to_key(root, "root"), tokens_per_block, origin, Sequence::Source::kKeys);
          },
          nb::arg("root"), nb::arg("tokens_per_block"), nb::kw_only(), nb::arg("origin") = 0)
      .def("append_keys", &append_keys, nb::arg("keys"))
      .def("extend", &extend<std::int32_t>, nb::arg("tokens").noconvert(), nb::arg("extras") = nb::none())
      .def("extend", &extend<std::int64_t>, nb::arg("tokens").noconvert(), nb::arg("extras") = nb::none())
      .def("extend", static_cast<void (*)(Sequence&, const nb::list&, const nb::object&)>(&extend), nb::arg("tokens"),
           nb::arg("extras") = nb::none())
      .def(
          "extend", [](Sequence&, const nb::object& tokens, const nb::object&) { refuse_tokens(tokens); },
          nb::arg("tokens").none(), nb::arg("extras") = nb::none())
      .def_prop_ro("root", [](const Sequence& sequence) { return to_bytes(sequence.root()); })
      .def_prop_ro("tokens_per_block", &Sequence::tokens_per_block)
      .def_prop_ro("origin", &Sequence::origin)
      .def_prop_ro("num_tokens", &Sequence::num_tokens)
      .def_prop_ro("num_blocks", &Sequence::num_blocks)
      .def_prop_ro("num_hashed_blocks", &Sequence::num_hashed_blocks)
      .def("keys", &keys, nb::arg("start") = 0, nb::arg("stop") = nb::none())
      .def("parent_key", &parent_key, nb::arg("block"));
  module.def("sha256_chain", &sha256_chain, nb::arg("root"), nb::arg("tokens").noconvert(), nb::arg("tokens_per_block"),
             nb::arg("portable") = false);
  module.def("sha256", &sha256, nb::arg("data"), nb::arg("portable") = false);
}

}  // namespace tiercel::bindings
