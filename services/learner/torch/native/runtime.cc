// Handles, errors, generators, and the C functions that are not operators.

#include "runtime.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <torch/version.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "mlp_kernels.h"
#include "sdpg_torch.h"
#include "workers.h"

namespace sdpg {
namespace {

// A handle is (generation << 24) | (slot + 1): 16.7 million tensors alive at once, and a slot's
// handle comes back only after 256 reuses. Slots live in chunks that never move, so a lookup takes
// no lock.
constexpr uint32_t kSlotBits = 24;
constexpr uint32_t kChunkBits = 12;
constexpr uint32_t kChunkSize = 1u << kChunkBits;
constexpr uint32_t kChunks = 1u << (kSlotBits - kChunkBits);

struct Slot {
  at::Tensor tensor;
  uint32_t generation = 0;
  bool used = false;
};

struct Table {
  std::mutex mutex;
  std::array<std::atomic<Slot*>, kChunks> chunks{};
  std::vector<uint32_t> free;
  uint32_t size = 0;
  std::atomic<int32_t> live{0};
};

// Leaked on purpose: libtorch's own statics may be gone before ours at process exit.
Table& table() {
  static Table* instance = new Table;
  return *instance;
}

Slot* find(uint32_t handle) {
  const uint32_t number = handle & ((1u << kSlotBits) - 1);
  if (number == 0) return nullptr;
  const uint32_t slot = number - 1;
  Slot* chunk = table().chunks[slot >> kChunkBits].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  Slot* found = &chunk[slot & (kChunkSize - 1)];
  if (!found->used || (found->generation & 0xff) != (handle >> kSlotBits)) return nullptr;
  return found;
}

struct Generators {
  std::mutex mutex;
  std::unordered_map<int32_t, std::unique_ptr<at::Generator>> all;
  int32_t next = 1;
};

Generators& generators() {
  static Generators* instance = new Generators;
  return *instance;
}

thread_local std::string last_error_text;

int32_t copy_text(const std::string& text, uint8_t* out, int32_t size) {
  const int32_t count = std::min<int32_t>(size, static_cast<int32_t>(text.size()));
  if (count > 0) std::memcpy(out, text.data(), count);
  return static_cast<int32_t>(text.size());
}

// Runs body; an exception becomes the thread's last error, "Cannot <action>: <reason>", and the
// value failed.
template <typename Result, typename Body>
Result guard(Result failed, const char* action, Body body) {
  try {
    FlushDenormals flush;
    return body();
  } catch (const std::exception& error) {
    set_last_error(std::string("Cannot ") + action + ": " + reason_of(error));
  } catch (...) {
    set_last_error(std::string("Cannot ") + action + ": unknown C++ exception");
  }
  return failed;
}

std::vector<int64_t> read_shape(const double* shape, int32_t dimensions) {
  std::vector<int64_t> sizes;
  for (int32_t i = 0; i < dimensions; ++i) {
    if (!(shape[i] >= 0) || shape[i] != std::floor(shape[i])) {
      refuse("shape must hold whole numbers of at least 0, got " + std::to_string(shape[i]));
    }
    sizes.push_back(static_cast<int64_t>(shape[i]));
  }
  return sizes;
}

int64_t bytes_needed(const std::vector<int64_t>& sizes, at::ScalarType type) {
  int64_t count = static_cast<int64_t>(c10::elementSize(type));
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(count, size, &count))
      refuse("shape has more elements than memory can hold");
  }
  return count;
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out;
}

using GetText = char* (*)();
using SetThreads = void (*)(int);

// OpenBLAS starts a thread per core and splits a product differently for each thread count; one
// thread here keeps the bits the same everywhere, and the fused operators bring their own threads.
std::string pin_blas() {
  if (auto set = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) {
    set(1);
    auto config = reinterpret_cast<GetText>(dlsym(RTLD_DEFAULT, "openblas_get_config"));
    std::string text = config ? config() : "OpenBLAS";
    if (text.find("OpenBLAS") == std::string::npos) text = "OpenBLAS " + text;
    return text;
  }
  return at::hasMKL() ? "MKL (inside libtorch)"
                      : "reference BLAS (slow: install libopenblas0-pthread)";
}

const std::string& prepare() {
  static const std::string blas = [] {
    at::set_num_threads(1);
    return pin_blas();
  }();
  return blas;
}

}  // namespace

void refuse(const std::string& reason) { throw std::invalid_argument(reason); }

uint32_t put(at::Tensor tensor) {
  Table& all = table();
  std::lock_guard<std::mutex> lock(all.mutex);
  uint32_t slot;
  if (!all.free.empty()) {
    slot = all.free.back();
    all.free.pop_back();
  } else {
    slot = all.size;
    if (slot + 1 >= (1u << kSlotBits)) refuse("too many tensors are alive; free some with a scope");
    if ((slot & (kChunkSize - 1)) == 0) {
      all.chunks[slot >> kChunkBits].store(new Slot[kChunkSize], std::memory_order_release);
    }
    ++all.size;
  }
  Slot& place = all.chunks[slot >> kChunkBits].load()[slot & (kChunkSize - 1)];
  place.tensor = std::move(tensor);
  place.used = true;
  all.live.fetch_add(1);
  return ((place.generation & 0xff) << kSlotBits) | (slot + 1);
}

const at::Tensor& get(uint32_t handle) {
  Slot* slot = find(handle);
  if (slot == nullptr)
    refuse("the tensor was freed already (its scope ended); keep it with scope.keep()");
  return slot->tensor;
}

bool release(uint32_t handle) {
  Table& all = table();
  at::Tensor last;  // destroyed after the lock is gone: it may free gigabytes
  std::lock_guard<std::mutex> lock(all.mutex);
  Slot* slot = find(handle);
  if (slot == nullptr) return false;
  last = std::move(slot->tensor);
  slot->tensor = at::Tensor();
  slot->used = false;
  ++slot->generation;
  all.free.push_back((handle & ((1u << kSlotBits) - 1)) - 1);
  all.live.fetch_sub(1);
  return true;
}

int32_t live() { return table().live.load(); }

int32_t put_generator(at::Generator generator) {
  Generators& all = generators();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.all[all.next] = std::make_unique<at::Generator>(std::move(generator));
  return all.next++;
}

at::Generator& get_generator(int32_t id) {
  Generators& all = generators();
  std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.all.find(id);
  if (found == all.all.end()) refuse("the generator was freed already");
  return *found->second;
}

bool release_generator(int32_t id) {
  Generators& all = generators();
  std::lock_guard<std::mutex> lock(all.mutex);
  return all.all.erase(id) > 0;
}

void set_last_error(std::string text) { last_error_text = std::move(text); }
const std::string& last_error() { return last_error_text; }

const char* name_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kLong:
      return "int64";
    case at::kInt:
      return "int32";
    case at::kByte:
      return "uint8";
    case at::kBool:
      return "bool";
    default:
      return c10::toString(type);
  }
}

at::ScalarType dtype_of(int32_t code) {
  switch (code) {
    case SDPG_FLOAT32:
      return at::kFloat;
    case SDPG_FLOAT64:
      return at::kDouble;
    case SDPG_INT64:
      return at::kLong;
    case SDPG_INT32:
      return at::kInt;
    case SDPG_UINT8:
      return at::kByte;
    case SDPG_BOOL:
      return at::kBool;
    default:
      refuse("unknown dtype code " + std::to_string(code));
  }
}

int32_t code_of(at::ScalarType type) {
  for (int32_t code = SDPG_FLOAT32; code <= SDPG_BOOL; ++code) {
    if (dtype_of(code) == type) return code;
  }
  refuse(std::string("no dtype code for ") + c10::toString(type));
}

std::string describe(const at::Tensor& tensor) {
  std::ostringstream out;
  out << name_of(tensor.scalar_type()) << '[';
  for (int64_t i = 0; i < tensor.dim(); ++i) out << (i ? ", " : "") << tensor.size(i);
  out << ']';
  return out.str();
}

std::string reason_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  // libtorch appends "Exception raised from …" and, in some builds, the message continues over
  // several lines.
  const size_t trace = text.find("\nException raised from");
  if (trace != std::string::npos) text.resize(trace);
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  if (text.size() > 1000) text.resize(1000);
  return text;
}

#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(before_); }
#else
FlushDenormals::FlushDenormals() : before_(0) {}
FlushDenormals::~FlushDenormals() {}
#endif

const at::Tensor& Arguments::t(int32_t i) const {
  if (i >= handle_count) refuse("expected at least " + std::to_string(i + 1) + " tensors");
  return get(handles[i]);
}

std::vector<at::Tensor> Arguments::tensors(int32_t first, int32_t count) const {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (int32_t i = 0; i < count; ++i) all.push_back(t(first + i));
  return all;
}

double Arguments::real(int32_t i) const {
  if (i >= number_count) refuse("expected at least " + std::to_string(i + 1) + " numbers");
  return numbers[i];
}

int64_t Arguments::integer(int32_t i) const {
  const double value = real(i);
  if (value != std::floor(value) || std::abs(value) > 9007199254740992.0) {
    refuse("expected a whole number, got " + std::to_string(value));
  }
  return static_cast<int64_t>(value);
}

at::Scalar Arguments::scalar(int32_t i) const {
  const double value = real(i);
  if (value == std::floor(value) && std::abs(value) <= 9007199254740992.0) {
    return at::Scalar(static_cast<int64_t>(value));
  }
  return at::Scalar(value);
}

std::vector<int64_t> Arguments::list(int32_t first) const {
  const int64_t count = integer(first);
  std::vector<int64_t> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(integer(first + 1 + static_cast<int32_t>(i)));
  return values;
}

}  // namespace sdpg

using namespace sdpg;

extern "C" {

int32_t sdpg_abi(void) {
  prepare();
  return SDPG_TORCH_ABI;
}

int32_t sdpg_last_error(uint8_t* text, int32_t size) { return copy_text(last_error(), text, size); }

int32_t sdpg_version(uint8_t* text, int32_t size) {
  return guard<int32_t>(-1, "describe the library", [&] {
    std::ostringstream out;
    out << "{\"torch\":\"" << TORCH_VERSION << "\",\"blas\":\"" << escape(prepare())
        << "\",\"parallel\":\"libtorch 1 thread, fused operators " << workers::threads()
        << " threads\",\"kernels\":\"" << kernels().name << "\"}";
    return copy_text(out.str(), text, size);
  });
}

int32_t sdpg_set_num_threads(int32_t threads) {
  return guard<int32_t>(-1, "set the number of threads", [&] {
    if (threads < 1 || threads > 256) refuse("expected 1 to 256, got " + std::to_string(threads));
    prepare();
    workers::set_threads(threads);
    return workers::threads();
  });
}

int32_t sdpg_set_kernels(const char* name) {
  return guard<int32_t>(-1, "choose an instruction set", [&] {
    if (!choose_kernels(name)) refuse(std::string("this CPU cannot run \"") + name + "\"");
    return 0;
  });
}

int32_t sdpg_live(void) { return live(); }

int32_t sdpg_free(const uint32_t* handles, int32_t count) {
  return guard<int32_t>(-1, "free tensors", [&] {
    int32_t freed = 0;
    for (int32_t i = 0; i < count; ++i) freed += release(handles[i]) ? 1 : 0;
    return freed;
  });
}

int32_t sdpg_op(const char* name) {
  const std::vector<Operator>& all = operators();
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].name == name) return static_cast<int32_t>(i);
  }
  return -1;
}

int32_t sdpg_call(int32_t op, const uint32_t* tensors, int32_t tensor_count, double* numbers,
                  int32_t number_count, uint32_t* out) {
  const std::vector<Operator>& all = operators();
  if (op < 0 || op >= static_cast<int32_t>(all.size())) {
    set_last_error("Cannot run operator " + std::to_string(op) +
                   ": no such code; rebuild libsdpg_torch");
    return -1;
  }
  const Operator& chosen = all[op];
  Arguments arguments{tensors, tensor_count, numbers, number_count, {}};
  try {
    FlushDenormals flush;
    if (chosen.tensors >= 0 && tensor_count != chosen.tensors) {
      refuse("expected " + std::to_string(chosen.tensors) + " tensors, got " +
             std::to_string(tensor_count));
    }
    if (number_count < chosen.numbers) {
      refuse("expected at least " + std::to_string(chosen.numbers) + " numbers, got " +
             std::to_string(number_count));
    }
    chosen.run(arguments);
    int32_t count = 0;
    for (at::Tensor& tensor : arguments.out) out[count++] = put(std::move(tensor));
    return count;
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << "Cannot run " << chosen.name << '(';
    for (int32_t i = 0; i < tensor_count; ++i) {
      if (i == 8) {
        text << ", … " << tensor_count << " tensors in all";
        break;
      }
      text << (i ? ", " : "");
      try {
        text << describe(get(tensors[i]));
      } catch (const std::exception&) {
        text << "freed tensor";
      }
    }
    for (int32_t i = 0; i < std::min(number_count, 12); ++i)
      text << (i || tensor_count ? ", " : "") << numbers[i];
    text << "): " << reason_of(error);
    set_last_error(text.str());
  } catch (...) {
    set_last_error(std::string("Cannot run ") + chosen.name + ": unknown C++ exception");
  }
  return -1;
}

int32_t sdpg_describe(uint32_t tensor, double* info) {
  return guard<int32_t>(-1, "describe a tensor", [&] {
    const at::Tensor& t = get(tensor);
    if (t.dim() > 12) refuse("it has more than 12 dimensions");
    info[0] = code_of(t.scalar_type());
    info[1] = static_cast<double>(t.dim());
    info[2] = t.requires_grad() ? 1 : 0;
    info[3] = static_cast<double>(t.numel());
    for (int64_t i = 0; i < t.dim(); ++i) info[4 + i] = static_cast<double>(t.size(i));
    return 0;
  });
}

uint32_t sdpg_from_bytes(const uint8_t* bytes, double bytes_size, int32_t dtype,
                         const double* shape, int32_t dimensions) {
  return guard<uint32_t>(0, "make a tensor from bytes", [&] {
    const at::ScalarType type = dtype_of(dtype);
    const std::vector<int64_t> sizes = read_shape(shape, dimensions);
    const int64_t needed = bytes_needed(sizes, type);
    at::Tensor t = at::empty(sizes, at::TensorOptions().dtype(type));
    if (static_cast<double>(needed) != bytes_size) {
      refuse(describe(t) + " needs " + std::to_string(needed) + " bytes, got " +
             std::to_string(static_cast<int64_t>(bytes_size)));
    }
    if (needed > 0) std::memcpy(t.data_ptr(), bytes, needed);
    return put(std::move(t));
  });
}

uint32_t sdpg_from_pointer(void* memory, int32_t dtype, const double* shape, int32_t dimensions) {
  return guard<uint32_t>(0, "view memory as a tensor", [&] {
    const at::ScalarType type = dtype_of(dtype);
    const std::vector<int64_t> sizes = read_shape(shape, dimensions);
    bytes_needed(sizes, type);
    if (memory == nullptr) refuse("the address is null");
    if (reinterpret_cast<uintptr_t>(memory) % c10::elementSize(type) != 0) {
      refuse(std::string("the address is not aligned to the size of ") + name_of(type));
    }
    return put(at::from_blob(memory, sizes, at::TensorOptions().dtype(type)));
  });
}

int32_t sdpg_to_bytes(uint32_t tensor, uint8_t* bytes, double bytes_size) {
  return guard<int32_t>(-1, "copy a tensor out", [&] {
    const at::Tensor t = get(tensor).detach().cpu().contiguous();
    if (static_cast<double>(t.nbytes()) != bytes_size) {
      refuse(describe(t) + " holds " + std::to_string(t.nbytes()) + " bytes, the buffer " +
             std::to_string(static_cast<int64_t>(bytes_size)));
    }
    if (t.nbytes() > 0) std::memcpy(bytes, t.data_ptr(), t.nbytes());
    return 0;
  });
}

int32_t sdpg_set_grad_enabled(int32_t enabled) {
  const bool before = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(enabled != 0);
  return before ? 1 : 0;
}

int32_t sdpg_generator_new(uint64_t seed) {
  return guard<int32_t>(-1, "make a generator",
                        [&] { return put_generator(at::detail::createCPUGenerator(seed)); });
}

int32_t sdpg_generator_free(int32_t generator) { return release_generator(generator) ? 0 : -1; }

void* sdpg_map_shared(const char* name, double bytes) {
  return guard<void*>(nullptr, "map shared memory", [&]() -> void* {
    if (!(bytes > 0)) refuse("expected a size of at least 1 byte");
    const int file = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) refuse(std::string(name) + ": " + std::strerror(errno));
    struct stat about {};
    void* address = MAP_FAILED;
    std::string reason;
    if (fstat(file, &about) != 0) {
      reason = std::strerror(errno);
    } else if (static_cast<double>(about.st_size) < bytes) {
      reason = "expected at least " + std::to_string(static_cast<int64_t>(bytes)) +
               " bytes, it has " + std::to_string(about.st_size);
    } else {
      address =
          mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      if (address == MAP_FAILED) reason = std::strerror(errno);
    }
    close(file);
    if (address == MAP_FAILED) refuse(std::string(name) + ": " + reason);
    return address;
  });
}

int32_t sdpg_unmap_shared(void* address, double bytes) {
  return guard<int32_t>(-1, "unmap shared memory", [&] {
    if (munmap(address, static_cast<size_t>(bytes)) != 0) refuse(std::strerror(errno));
    return 0;
  });
}

}  // extern "C"
