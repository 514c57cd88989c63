#include "batch/shared_memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>

namespace sdpg::batch {
namespace {

// Whether an object in /dev/shm has a name as `Memory::shared` gives, and of which process.
bool read_name(const char* name, int* process) {
  unsigned uid = 0;
  int pid = 0, read = 0;
  if (std::sscanf(name, "sdpg-%u-%d-%n", &uid, &pid, &read) != 2 || read == 0) return false;
  if (uid != getuid() || pid <= 0) return false;
  if (process != nullptr) *process = pid;
  // The label may be empty and may hold hyphens; the random part is the 16 digits at the end.
  const std::size_t length = strlen(name);
  return length >= static_cast<std::size_t>(read) + 17 &&
         strspn(name + length - 16, "0123456789abcdef") == 16 && strchr(name, '/') == nullptr;
}

}  // namespace

std::unique_ptr<Memory> Memory::plain(std::size_t bytes, std::string* error) {
  // Anonymous pages are zero and are only taken from the machine when they are touched.
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    *error = "cannot allocate " + std::to_string(bytes) + " bytes: " + strerror(errno);
    return nullptr;
  }
  std::unique_ptr<Memory> memory(new Memory);
  memory->data_ = data;
  memory->bytes_ = bytes;
  return memory;
}

std::unique_ptr<Memory> Memory::shared(std::size_t bytes, const std::string& label,
                                       std::string* error) {
  std::uint64_t random = 0;
  if (getrandom(&random, sizeof random, 0) != sizeof random) {
    *error = std::string("cannot draw a name for shared memory: ") + strerror(errno);
    return nullptr;
  }
  char name[128];
  std::snprintf(name, sizeof name, "/sdpg-%u-%d-%s-%016" PRIx64, static_cast<unsigned>(getuid()),
                static_cast<int>(getpid()), label.c_str(), random);
  const int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) {
    *error = std::string("cannot create shared memory: ") + strerror(errno) +
             "; use transport inline, or make /dev/shm writable";
    return nullptr;
  }
  const int full = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* data =
      full != 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int reason = full != 0 ? full : errno;
  close(file);
  if (data == MAP_FAILED) {
    shm_unlink(name);
    *error = "cannot allocate " + std::to_string(bytes) +
             " bytes of shared memory: " + strerror(reason) +
             "; use transport inline, or enlarge /dev/shm";
    return nullptr;
  }
  std::unique_ptr<Memory> memory(new Memory);
  memory->data_ = data;
  memory->bytes_ = bytes;
  memory->name_ = name;
  memory->linked_ = true;
  return memory;
}

std::unique_ptr<Memory> Memory::map(const std::string& name, std::size_t bytes,
                                    std::string* error) {
  const std::string shown = "shared memory '" + name.substr(0, 128) + "'";
  // Nothing but what `shared` made: the name comes from a caller.
  if (name.size() > 127 || name.rfind("/sdpg-", 0) != 0 || !read_name(name.c_str() + 1, nullptr)) {
    *error = shown + ": expected a name /sdpg-<user>-<process>-<label>-<16 digits>";
    return nullptr;
  }
  const int file = shm_open(name.c_str(), O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) {
    *error = "cannot open " + shown + ": " + strerror(errno) +
             "; give it before the batch's first Begin, which removes the name";
    return nullptr;
  }
  struct stat found;
  const bool known = fstat(file, &found) == 0;
  const bool own = known && found.st_uid == getuid() && (found.st_mode & 0777) == 0600;
  const bool fits = own && static_cast<std::uint64_t>(found.st_size) == bytes && bytes > 0;
  void* data = fits ? mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int reason = errno;
  close(file);
  if (!own) {
    *error = shown + ": expected an object of this user with mode 0600";
  } else if (!fits) {
    *error = shown + ": expected " + std::to_string(bytes) + " bytes, got " +
             std::to_string(found.st_size);
  } else if (data == MAP_FAILED) {
    *error = "cannot map " + shown + ": " + strerror(reason);
  }
  if (data == MAP_FAILED) return nullptr;
  std::unique_ptr<Memory> memory(new Memory);
  memory->data_ = data;
  memory->bytes_ = bytes;
  return memory;
}

Memory::~Memory() {
  unlink();
  munmap(data_, bytes_);
}

void Memory::unlink() {
  if (linked_) shm_unlink(name_.c_str());
  linked_ = false;
}

int sweep_shared_memory() {
  DIR* directory = opendir("/dev/shm");
  if (directory == nullptr) return 0;
  int removed = 0;
  while (const dirent* entry = readdir(directory)) {
    int pid = 0;
    if (!read_name(entry->d_name, &pid)) continue;
    if (pid != getpid() && (kill(pid, 0) == 0 || errno != ESRCH)) continue;
    removed += shm_unlink((std::string("/") + entry->d_name).c_str()) == 0;
  }
  closedir(directory);
  return removed;
}

}  // namespace sdpg::batch
