// Memory of a buffer: plain memory of the process, or a POSIX shared memory object.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace sdpg::batch {

// Zeroed memory, aligned to 64 bytes.
class Memory {
 public:
  static std::unique_ptr<Memory> plain(std::size_t bytes, std::string* error);
  // An object named /sdpg-<uid>-<pid>-<label>-<16 hex digits>, mode 0600, with all its pages
  // allocated: a full /dev/shm is an error here and not a SIGBUS later.
  static std::unique_ptr<Memory> shared(std::size_t bytes, const std::string& label,
                                        std::string* error);
  // Maps another process's object of that form and of this user, to read it; `bytes` long.
  static std::unique_ptr<Memory> map(const std::string& name, std::size_t bytes,
                                     std::string* error);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  // Name of the shared memory object, also after `unlink`; empty for plain memory.
  const std::string& name() const { return name_; }
  // Removes the name; both sides' mappings stay. Idempotent.
  void unlink();

 private:
  Memory() = default;

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::string name_;
  bool linked_ = false;
};

// Removes this user's objects whose process is gone, as a crash leaves them behind, and those that
// carry this process's own id (an earlier process had it). Call before the first batch. Returns how
// many were removed.
int sweep_shared_memory();

}  // namespace sdpg::batch
