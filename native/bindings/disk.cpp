#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "disk/block_files.hpp"
#include "disk/journal.hpp"
#include "version.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tiercel::bindings {
namespace {

using disk::BlockFiles;
using disk::BlockFilesOptions;
using disk::Journal;
using disk::KeyBytes;
using disk::Mapping;
using disk::Replay;

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Names = nb::ndarray<const std::uint8_t, nb::shape<-1, 16>, nb::c_contig, nb::device::cpu>;
using Seconds = std::optional<nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>>;
template <typename T, typename... Shape>
using Numpy = nb::ndarray<nb::numpy, T, Shape...>;

template <typename T>
std::span<const T> view(const Vector<T>& array) {
  return {array.data(), array.size()};
}

std::span<const KeyBytes> view(const Names& names) {
  return {reinterpret_cast<const KeyBytes*>(names.data()), names.shape(0)};
}

void check_length(std::size_t length, std::size_t expected, const char* name) {
  if (length != expected) throw std::invalid_argument(std::string(name) + ": length differs from that of slots");
}

std::span<double> checked_view(const Seconds& seconds, std::size_t expected) {
  if (!seconds) return {};
  check_length(seconds->size(), expected, "seconds");
  return {seconds->data(), seconds->size()};
}

template <typename T>
Numpy<T, nb::ndim<1>> to_numpy(std::vector<T>&& values) {
  auto* owned = new std::vector<T>(std::move(values));
  const nb::capsule owner(owned, [](void* vector) noexcept { delete static_cast<std::vector<T>*>(vector); });
  return {owned->data(), {owned->size()}, owner};
}

Numpy<std::uint8_t, nb::shape<-1, 16>> names_of(const std::vector<Mapping>& mappings, KeyBytes Mapping::*field) {
  auto* owned = new std::vector<KeyBytes>();
  const nb::capsule owner(owned, [](void* vector) noexcept { delete static_cast<std::vector<KeyBytes>*>(vector); });
  owned->reserve(mappings.size());
  for (const Mapping& mapping : mappings) owned->push_back(mapping.*field);
  return {reinterpret_cast<std::uint8_t*>(owned->data()), {owned->size(), 16}, owner};
}

template <typename T>
Numpy<T, nb::ndim<1>> column_of(const std::vector<Mapping>& mappings, T Mapping::*field) {
  std::vector<T> values;
  values.reserve(mappings.size());
  for (const Mapping& mapping : mappings) values.push_back(mapping.*field);
  return to_numpy(std::move(values));
}

// A native object that Python may close while another thread is inside a call of it: the last one out destroys it.
template <typename T>
class Closable {
 public:
  explicit Closable(std::shared_ptr<T> value) : value_(std::move(value)) {}
  std::shared_ptr<T> get() const {
    const std::lock_guard lock(mutex_);
    if (!value_) throw std::invalid_argument("the object is closed");
    return value_;
  }
  void close() {
    std::shared_ptr<T> last;
    const std::lock_guard lock(mutex_);
    last.swap(value_);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<T> value_;
};

struct PyBlockFiles : Closable<BlockFiles> {
  using Closable::Closable;
};
struct PyJournal : Closable<Journal> {
  using Closable::Closable;
};

BlockFilesOptions options_of(std::vector<std::string> paths, std::uint32_t num_slots, std::uint64_t slot_bytes,
                             std::uint64_t block_bytes, std::uint32_t queue_depth,
                             std::uint64_t write_bytes_beside_reads, const std::string& engine, bool direct) {
  BlockFilesOptions options{std::move(paths), num_slots, block_bytes, slot_bytes, queue_depth};
  options.write_bytes_beside_reads = write_bytes_beside_reads;
  options.direct = direct;
  if (engine == "io_uring") {
    options.engine = disk::EngineChoice::kUring;
  } else if (engine == "threads") {
    options.engine = disk::EngineChoice::kThreads;
  } else if (engine != "auto") {
    throw std::invalid_argument("engine: \"auto\", \"io_uring\" or \"threads\"");
  }
  return options;
}

nb::tuple write_blocks(const PyBlockFiles& self, const Vector<std::uint32_t>& slots,
                       const Vector<std::uint64_t>& addresses, const Vector<std::uint64_t>& seeds,
                       const Seconds& seconds) {
  check_length(addresses.size(), slots.size(), "addresses");
  check_length(seeds.size(), slots.size(), "seeds");
  const std::span<double> timed = checked_view(seconds, slots.size());
  std::vector<std::int32_t> errors(slots.size());
  std::vector<std::uint64_t> checksums(slots.size());
  {
    const nb::gil_scoped_release release;
    self.get()->write(view(slots), view(addresses), view(seeds), errors, checksums, timed);
  }
  return nb::make_tuple(to_numpy(std::move(errors)), to_numpy(std::move(checksums)));
}

Numpy<std::int32_t, nb::ndim<1>> read_blocks(const PyBlockFiles& self, const Vector<std::uint32_t>& slots,
                                             const Vector<std::uint64_t>& addresses, const Vector<std::uint64_t>& seeds,
                                             const Vector<std::uint64_t>& checksums, const Seconds& seconds) {
  check_length(addresses.size(), slots.size(), "addresses");
  check_length(seeds.size(), slots.size(), "seeds");
  check_length(checksums.size(), slots.size(), "checksums");
  const std::span<double> timed = checked_view(seconds, slots.size());
  std::vector<std::int32_t> errors(slots.size());
  {
    const nb::gil_scoped_release release;
    self.get()->read(view(slots), view(addresses), view(seeds), view(checksums), errors, timed);
  }
  return to_numpy(std::move(errors));
}

void put(const PyJournal& self, const nb::bytes& parent, const Names& keys, const Vector<std::uint32_t>& slots,
         const Vector<std::uint64_t>& checksums) {
  if (parent.size() != disk::kKeyBytes) throw std::invalid_argument("parent: 16 bytes");
  check_length(keys.shape(0), slots.size(), "keys");
  check_length(checksums.size(), slots.size(), "checksums");
  KeyBytes parent_key;
  std::memcpy(parent_key.data(), parent.c_str(), disk::kKeyBytes);
  const nb::gil_scoped_release release;
  self.get()->put(parent_key, view(keys), view(slots), view(checksums));
}

void write_checkpoint(const PyJournal& self, const Names& parents, const Names& keys,
                      const Vector<std::uint32_t>& slots, const Vector<std::uint64_t>& checksums) {
  check_length(parents.shape(0), slots.size(), "parents");
  check_length(keys.shape(0), slots.size(), "keys");
  check_length(checksums.size(), slots.size(), "checksums");
  const nb::gil_scoped_release release;
  std::vector<Mapping> mappings;
  mappings.reserve(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    mappings.push_back({view(parents)[i], view(keys)[i], view(slots)[i], view(checksums)[i]});
  }
  self.get()->write_checkpoint(mappings);
}

// errno, message and path become the OSError that Python's own file functions would raise.
void translate_file_error(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const disk::FileError& error) {
    const nb::object value = nb::make_tuple(error.code().value(), error.what(), error.path());
    PyErr_SetObject(PyExc_OSError, value.ptr());
  } catch (const std::system_error& error) {
    const nb::object value = nb::make_tuple(error.code().value(), error.what());
    PyErr_SetObject(PyExc_OSError, value.ptr());
  }
}

void bind_block_files(nb::module_& module) {
  nb::class_<PyBlockFiles>(module, "BlockFiles")
      .def(
          "__init__",
          [](PyBlockFiles* self, std::vector<std::string> paths, std::uint32_t num_slots, std::uint64_t slot_bytes,
             std::uint64_t block_bytes, std::uint32_t queue_depth, std::uint64_t write_bytes_beside_reads,
             const std::string& engine, bool direct) {
            BlockFilesOptions options = options_of(std::move(paths), num_slots, slot_bytes, block_bytes, queue_depth,
                                                   write_bytes_beside_reads, engine, direct);
            const nb::gil_scoped_release release;
            new (self) PyBlockFiles(std::make_shared<BlockFiles>(std::move(options)));
          },
          "paths"_a, nb::kw_only(), "num_slots"_a, "slot_bytes"_a, "block_bytes"_a, "queue_depth"_a,
          "write_bytes_beside_reads"_a = 1 << 20, "engine"_a = "auto", "direct"_a = true)
      .def_prop_ro("engine", [](const PyBlockFiles& self) { return self.get()->uses_uring() ? "io_uring" : "threads"; })
      .def_prop_ro("engine_reason", [](const PyBlockFiles& self) { return self.get()->engine_reason(); })
      .def_prop_ro("direct", [](const PyBlockFiles& self) { return self.get()->direct(); })
      .def_prop_ro("direct_reason", [](const PyBlockFiles& self) { return self.get()->direct_reason(); })
      .def_prop_ro("allocation_reason", [](const PyBlockFiles& self) { return self.get()->allocation_reason(); })
      .def_prop_ro("memory_reason", [](const PyBlockFiles& self) { return self.get()->memory_reason(); })
      .def_prop_ro("registered_bytes", [](const PyBlockFiles& self) { return self.get()->registered_bytes(); })
      .def(
          "use_memory",
          [](const PyBlockFiles& self, std::uint64_t address, std::uint64_t num_bytes, std::uint64_t unit_bytes) {
            self.get()->use_memory({address, num_bytes, unit_bytes});
          },
          "address"_a, "num_bytes"_a, "unit_bytes"_a, nb::call_guard<nb::gil_scoped_release>())
      .def(
          "forget_memory", [](const PyBlockFiles& self, std::uint64_t address) { self.get()->forget_memory(address); },
          "address"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("write", &write_blocks, "slots"_a, "addresses"_a, "seeds"_a, "seconds"_a.noconvert() = nb::none())
      .def("read", &read_blocks, "slots"_a, "addresses"_a, "seeds"_a, "checksums"_a,
           "seconds"_a.noconvert() = nb::none())
      .def(
          "sync", [](const PyBlockFiles& self) { self.get()->sync(); }, nb::call_guard<nb::gil_scoped_release>())
      .def("close", &PyBlockFiles::close, nb::call_guard<nb::gil_scoped_release>());
}

void bind_journal(nb::module_& module) {
  nb::class_<Replay>(module, "Recovered")
      .def_prop_ro(
          "parents", [](const Replay& self) { return names_of(self.mappings, &Mapping::parent); },
          nb::rv_policy::automatic)
      .def_prop_ro(
          "keys", [](const Replay& self) { return names_of(self.mappings, &Mapping::key); }, nb::rv_policy::automatic)
      .def_prop_ro(
          "slots", [](const Replay& self) { return column_of(self.mappings, &Mapping::slot); },
          nb::rv_policy::automatic)
      .def_prop_ro(
          "checksums", [](const Replay& self) { return column_of(self.mappings, &Mapping::checksum); },
          nb::rv_policy::automatic)
      .def_ro("torn_bytes", &Replay::torn_bytes)
      .def_ro("corrupt_records", &Replay::num_corrupt)
      .def_ro("out_of_range", &Replay::num_out_of_range);
  nb::class_<PyJournal>(module, "Journal")
      .def(
          "__init__",
          [](PyJournal* self, std::string directory, std::uint32_t num_slots) {
            new (self) PyJournal(std::make_shared<Journal>(std::move(directory), num_slots));
          },
          "directory"_a, nb::kw_only(), "num_slots"_a)
      .def(
          "recover", [](const PyJournal& self) { return self.get()->recover(); },
          nb::call_guard<nb::gil_scoped_release>())
      .def("put", &put, "parent"_a, "keys"_a, "slots"_a, "checksums"_a)
      .def(
          "free",
          [](const PyJournal& self, const Vector<std::uint32_t>& slots) {
            const nb::gil_scoped_release release;
            self.get()->free(view(slots));
          },
          "slots"_a)
      .def(
          "begin_checkpoint", [](const PyJournal& self) { self.get()->begin_checkpoint(); },
          nb::call_guard<nb::gil_scoped_release>())
      .def("write_checkpoint", &write_checkpoint, "parents"_a, "keys"_a, "slots"_a, "checksums"_a)
      .def_prop_ro("appended_bytes", [](const PyJournal& self) { return self.get()->appended_bytes(); })
      .def_prop_ro("num_segments", [](const PyJournal& self) { return self.get()->num_segments(); })
      .def(
          "sync", [](const PyJournal& self) { self.get()->sync(); }, nb::call_guard<nb::gil_scoped_release>())
      .def("close", &PyJournal::close, nb::call_guard<nb::gil_scoped_release>());
  module.def("replay_journal", &disk::replay_journal, "directory"_a, nb::kw_only(), "num_slots"_a,
             nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

void bind_disk(nb::module_& module) {
  nb::register_exception_translator(translate_file_error);
  module.attr("CHECKSUM_MISMATCH") = disk::kChecksumMismatch;
  bind_block_files(module);
  bind_journal(module);
}

}  // namespace tiercel::bindings
