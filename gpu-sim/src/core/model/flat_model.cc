#include "core/model/flat_model.h"

#include <cstring>
#include <map>

#include "core/model/owned_model.h"

namespace sdpg::core {
namespace {

// Alignment of every array; loads of the kernels are at most this wide.
constexpr std::size_t kAlign = 16;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

struct Header {
  char magic[8];
  std::uint64_t layout;  // of the structs inside, as far as their sizes tell
  std::uint64_t bytes, pointers;
};
constexpr char kMagic[8] = {'S', 'D', 'P', 'G', 'F', 'L', 'A', 'T'};
constexpr std::uint64_t kLayout = sizeof(Model) + (sizeof(Constants<float>) << 16) +
                                  (sizeof(Constants<double>) << 32) + (sizeof(Pair) << 48) +
                                  (std::uint64_t{sizeof(Softness<double>)} << 56);

}  // namespace

FlatModel flatten_model(const Model& model) {
  const auto& owned = static_cast<const OwnedModel&>(model);
  FlatModel flat;
  flat.bytes.resize(aligned(sizeof(Model)));
  std::map<std::uintptr_t, std::pair<std::size_t, std::size_t>> arrays;  // to (offset, size)
  for (const auto& array : owned.memory) {
    const std::size_t offset = flat.bytes.size();
    arrays[reinterpret_cast<std::uintptr_t>(array.data())] = {offset, array.size()};
    flat.bytes.resize(aligned(offset + array.size()));
    std::memcpy(flat.bytes.data() + offset, array.data(), array.size());
  }
  std::memcpy(flat.bytes.data(), &model, sizeof(Model));
  for (std::uint32_t at = 0; at + sizeof(std::uintptr_t) <= sizeof(Model);
       at += sizeof(std::uintptr_t)) {
    std::uintptr_t word;
    std::memcpy(&word, flat.bytes.data() + at, sizeof word);
    auto next = arrays.upper_bound(word);
    if (next == arrays.begin()) continue;
    const auto& [start, place] = *--next;
    if (word - start >= place.second) continue;
    const std::uintptr_t offset = place.first + (word - start);
    std::memcpy(flat.bytes.data() + at, &offset, sizeof offset);
    flat.pointers.push_back(at);
  }
  return flat;
}

std::vector<unsigned char> FlatModel::at(std::uintptr_t base) const {
  std::vector<unsigned char> out = bytes;
  for (const std::uint32_t pointer : pointers) {
    std::uintptr_t word;
    std::memcpy(&word, out.data() + pointer, sizeof word);
    word += base;
    std::memcpy(out.data() + pointer, &word, sizeof word);
  }
  return out;
}

std::string save_flat_model(const FlatModel& flat) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.layout = kLayout;
  header.bytes = flat.bytes.size();
  header.pointers = flat.pointers.size();
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  file.append(reinterpret_cast<const char*>(flat.bytes.data()), flat.bytes.size());
  file.append(reinterpret_cast<const char*>(flat.pointers.data()), 4 * flat.pointers.size());
  return file;
}

std::shared_ptr<const Model> load_flat_model(const std::string& file, std::string* error) {
  Header header;
  if (file.size() < sizeof header) {
    *error = "not a flat model: the file has " + std::to_string(file.size()) + " bytes";
    return nullptr;
  }
  std::memcpy(&header, file.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) {
    *error = "not a flat model";
    return nullptr;
  }
  if (header.layout != kLayout || header.bytes > file.size() || header.pointers > file.size() ||
      file.size() != sizeof header + header.bytes + 4 * header.pointers ||
      header.bytes < sizeof(Model)) {
    *error = "the flat model is of another build's layout; write it again with flatten_model";
    return nullptr;
  }
  auto model = std::make_shared<OwnedModel>();
  FlatModel flat;
  const char* at = file.data() + sizeof header;
  flat.bytes.assign(at, at + header.bytes);
  flat.pointers.resize(header.pointers);
  std::memcpy(flat.pointers.data(), at + header.bytes, 4 * header.pointers);
  for (const std::uint32_t pointer : flat.pointers) {
    std::uintptr_t offset = 0;
    if (pointer + sizeof offset <= sizeof(Model))
      std::memcpy(&offset, flat.bytes.data() + pointer, sizeof offset);
    if (offset < sizeof(Model) || offset >= flat.bytes.size()) {
      *error = "the flat model is damaged: a pointer leads outside of it";
      return nullptr;
    }
  }
  std::vector<unsigned char>& memory = model->memory.emplace_back(flat.bytes);
  const auto placed = flat.at(reinterpret_cast<std::uintptr_t>(memory.data()));
  memory = placed;  // the same size: the memory stays where it is
  std::memcpy(static_cast<Model*>(model.get()), memory.data(), sizeof(Model));
  return model;
}

}  // namespace sdpg::core
