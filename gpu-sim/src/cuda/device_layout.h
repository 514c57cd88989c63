// How arrays share one allocation of a device.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace sdpg::cuda {

inline std::uint64_t align256(std::uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// Arrays collected on the host, to be uploaded in one piece.
class Constants {
 public:
  // Offset of the array.
  template <class T>
  std::uint64_t add(const T* items, std::size_t count) {
    const std::uint64_t at = bytes_.size();
    bytes_.insert(bytes_.end(), align256(count * sizeof(T)), 0);
    if (count > 0) std::memcpy(bytes_.data() + at, items, count * sizeof(T));
    return at;
  }
  template <class T>
  std::uint64_t add(const std::vector<T>& items) {
    return add(items.data(), items.size());
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }
  // An array that is in it, to be changed.
  template <class T>
  T* at(std::uint64_t offset) {
    return reinterpret_cast<T*>(bytes_.data() + offset);
  }

 private:
  std::vector<unsigned char> bytes_;
};

// Divides one allocation; with a null base it only counts.
class Divider {
 public:
  explicit Divider(unsigned char* base) : base_(base) {}
  template <class T>
  T* take(std::uint64_t count) {
    T* const out = reinterpret_cast<T*>(base_ + used_);
    used_ += align256(count * sizeof(T));
    return out;
  }
  std::uint64_t used() const { return used_; }

 private:
  unsigned char* base_;
  std::uint64_t used_ = 0;
};

}  // namespace sdpg::cuda
