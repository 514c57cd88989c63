// The exact state of a batch as bytes: a header that says what it belongs to, then everything the
// next step depends on. Little-endian, as the machines it runs on.

#include <string.h>

#include "batch/batch.h"
#include "cuda/device_batch.h"
#include "render/image_stacks.h"

namespace sdpg::batch {
namespace {

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t scalar_bytes;
  std::uint64_t total_bytes;
  std::uint64_t checksum;     // of all bytes behind the header
  std::uint64_t model, task;  // fingerprints of the messages
  std::uint64_t seed;
  std::uint32_t nominals, auxiliaries;
  std::uint32_t lanes, rows;
  char isa[16];
  std::uint64_t environment_steps;
  std::uint64_t faults[8];
};
static_assert(sizeof(Header) == 160, "the layout of a snapshot is part of its version");

constexpr char kMagic[8] = {'S', 'D', 'P', 'G', 'S', 'N', 'A', 'P'};
constexpr std::uint32_t kVersion = 2;
// With views the newest stacks follow the state, behind these words.
constexpr std::uint32_t kVersionWithViews = 3;

struct StacksHeader {
  std::uint64_t views;  // fingerprint of the messages
  std::uint64_t shown;  // 1 where the stacks show the present state
};

}  // namespace

std::uint64_t Batch::saved_state_bytes() const {
  if (device_) return device_->saved_bytes();
  const std::uint64_t padded = std::uint64_t{blocks_} * lanes_;
  return blocks_ * block_stride_ + padded * 4 + sizes_.nominals * 4ull;
}

std::uint64_t Batch::snapshot_bytes() const {
  const std::uint64_t stacks = stacks_ ? sizeof(StacksHeader) + stacks_->saved_bytes() : 0;
  return sizeof(Header) + saved_state_bytes() + stacks;
}

Status Batch::snapshot(std::uint8_t* out, std::uint64_t bytes) const {
  if (segment_open_)
    return refuse(kFailedPrecondition, "snapshot: a segment is open; end it first");
  if (bytes != snapshot_bytes())
    return refuse(kInvalidArgument, "snapshot: expected room for %llu bytes, got %llu",
                  static_cast<unsigned long long>(snapshot_bytes()),
                  static_cast<unsigned long long>(bytes));
  const std::uint64_t state = blocks_ * block_stride_;
  const std::uint64_t progress = std::uint64_t{blocks_} * lanes_ * 4;
  std::uint8_t* at = out + sizeof(Header);
  if (device_) {
    device_->save(at);
  } else {
    memcpy(at, state_, state);
    memcpy(at + state, progress_, progress);
    memcpy(at + state + progress, episodes_, sizes_.nominals * 4ull);
  }
  if (stacks_) {
    std::uint8_t* const into = at + saved_state_bytes();
    const StacksHeader stacks{stacks_->fingerprint(), newest_shown_};
    memcpy(into, &stacks, sizeof stacks);
    if (device_) {
      device_->save_stacks(newest_slot_, into + sizeof stacks);
    } else {
      std::vector<std::uint8_t> fresh(sizes_.nominals);
      for (std::uint32_t n = 0; n < sizes_.nominals; ++n)
        fresh[n] = progress_[n * sizes_.members] == 0;
      stacks_->save(newest_slot_, fresh.data(), into + sizeof stacks);
    }
  }

  Header header{};
  memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = stacks_ ? kVersionWithViews : kVersion;
  header.scalar_bytes = static_cast<std::uint32_t>(kernels_->scalar_bytes);
  header.total_bytes = bytes;
  header.checksum = fingerprint(at, bytes - sizeof(Header));
  header.model = model_fingerprint_;
  header.task = task_fingerprint_;
  header.seed = seed_;
  header.nominals = sizes_.nominals;
  header.auxiliaries = sizes_.auxiliaries;
  header.lanes = static_cast<std::uint32_t>(kernels_->lanes);
  header.rows = rows_.state_end;
  strncpy(header.isa, kernels_->isa, sizeof header.isa - 1);
  header.environment_steps = environment_steps_;
  for (int bit = 0; bit < 8; ++bit) header.faults[bit] = fault_counts_[bit];
  memcpy(out, &header, sizeof header);
  return {};
}

Status Batch::restore(const std::uint8_t* bytes, std::uint64_t count) {
  if (segment_open_) return refuse(kFailedPrecondition, "restore: a segment is open; end it first");
  const auto wide = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  Header header;
  if (count < sizeof header)
    return refuse(kInvalidArgument, "restore: expected %llu bytes, got %llu",
                  wide(snapshot_bytes()), wide(count));
  memcpy(&header, bytes, sizeof header);
  if (memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    return refuse(kInvalidArgument, "restore: the bytes are not a snapshot of a batch");
  if (header.version != kVersion && header.version != kVersionWithViews)
    return refuse(kInvalidArgument, "restore: expected snapshot version %u or %u, got %u", kVersion,
                  kVersionWithViews, header.version);
  if ((header.version == kVersionWithViews) != draws())
    return refuse(kInvalidArgument, "restore: the snapshot is of a batch %s views, this one has %s",
                  draws() ? "without" : "with", draws() ? "some" : "none");
  if (header.model != model_fingerprint_)
    return refuse(kInvalidArgument, "restore: the snapshot is of another model");
  if (header.task != task_fingerprint_)
    return refuse(kInvalidArgument, "restore: the snapshot is of another task program");
  if (header.nominals != sizes_.nominals || header.auxiliaries != sizes_.auxiliaries)
    return refuse(kInvalidArgument,
                  "restore: expected %u nominals with %u auxiliaries, got %u with %u",
                  sizes_.nominals, sizes_.auxiliaries, header.nominals, header.auxiliaries);
  if (header.seed != seed_)
    return refuse(kInvalidArgument, "restore: expected seed %llu, got %llu", wide(seed_),
                  wide(header.seed));
  header.isa[sizeof header.isa - 1] = 0;
  if (strcmp(header.isa, kernels_->isa) != 0 ||
      header.lanes != static_cast<std::uint32_t>(kernels_->lanes))
    return refuse(kInvalidArgument,
                  "restore: expected instruction set %s with %u lanes, got %s with %u; an exact "
                  "restore needs the same (SDPG_ISA chooses it)",
                  kernels_->isa, static_cast<std::uint32_t>(kernels_->lanes), header.isa,
                  header.lanes);
  if (header.scalar_bytes != static_cast<std::uint32_t>(kernels_->scalar_bytes))
    return refuse(kInvalidArgument, "restore: expected numbers of %d bytes, got %u",
                  kernels_->scalar_bytes, header.scalar_bytes);
  const std::uint64_t state = blocks_ * block_stride_;
  const std::uint64_t progress = std::uint64_t{blocks_} * lanes_ * 4;
  StacksHeader stacks{};
  if (const std::uint64_t at = sizeof header + saved_state_bytes();
      draws() && count >= at + sizeof stacks) {
    memcpy(&stacks, bytes + at, sizeof stacks);
    if (stacks.views != stacks_->fingerprint())
      return refuse(kInvalidArgument, "restore: the snapshot is of other views");
  }
  if (header.rows != rows_.state_end || header.total_bytes != snapshot_bytes() ||
      count != snapshot_bytes())
    return refuse(kInvalidArgument, "restore: expected %llu bytes, got %llu",
                  wide(snapshot_bytes()), wide(count));
  const std::uint8_t* at = bytes + sizeof header;
  if (fingerprint(at, count - sizeof header) != header.checksum)
    return refuse(kInvalidArgument, "restore: the snapshot is damaged (checksum differs)");

  if (stacks_) {
    const std::uint8_t* const from = at + saved_state_bytes() + sizeof stacks;
    newest_slot_ = 0;
    newest_shown_ = stacks.shown != 0;
    if (device_)
      device_->restore_stacks(newest_slot_, from);
    else
      stacks_->restore(newest_slot_, from);
  }
  if (device_) {
    device_->restore(at);
  } else {
    memcpy(state_, at, state);
    memcpy(progress_, at + state, progress);
    memcpy(episodes_, at + state + progress, sizes_.nominals * 4ull);
  }
  environment_steps_ = header.environment_steps;
  for (int bit = 0; bit < 8; ++bit) fault_counts_[bit] = header.faults[bit];
  return {};
}

}  // namespace sdpg::batch
