// The CUDA library holds machine code for both architectures and PTX of the newer one, in every one
// of its translation units. Read from the fat binaries in the objects: a header (magic, version,
// header's length, length), then entries (kind, ..., header's length, length, ..., architecture).
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <utility>

namespace sdpg::cuda {
namespace {

template <class T>
T at(const std::string& bytes, std::size_t offset) {
  T value{};
  EXPECT_LE(offset + sizeof value, bytes.size());
  if (offset + sizeof value <= bytes.size())
    std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

TEST(CudaLibrary, HoldsBothArchitectures) {
  const std::string path = SDPG_CUDA_LIBRARY;
  if (path.empty()) GTEST_SKIP() << "built without nvcc";
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const std::string magic = "\x50\xed\x55\xba";
  constexpr int kPtx = 1, kMachineCode = 2;
  const std::set<std::pair<int, int>> expected = {
      {kMachineCode, 89}, {kMachineCode, 90}, {kPtx, 90}};
  int units = 0;
  for (std::size_t i = bytes.find(magic); i != std::string::npos; i = bytes.find(magic, i + 4)) {
    const std::size_t header = at<std::uint16_t>(bytes, i + 6);
    const std::size_t length = at<std::uint64_t>(bytes, i + 8);
    std::set<std::pair<int, int>> found;
    for (std::size_t entry = i + header; entry < i + header + length;) {
      const std::size_t entry_header = at<std::uint32_t>(bytes, entry + 4);
      ASSERT_GT(entry_header, 0u);
      found.insert({at<std::uint16_t>(bytes, entry), at<std::int32_t>(bytes, entry + 28)});
      entry += entry_header + at<std::uint64_t>(bytes, entry + 8);
    }
    EXPECT_EQ(found, expected) << "fat binary " << units;
    ++units;
  }
  EXPECT_EQ(units, 4) << "physics_16.cu, physics_32.cu, picture.cu, cuda_device.cu";
}

}  // namespace
}  // namespace sdpg::cuda
