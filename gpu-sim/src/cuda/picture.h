// A picture by a block of threads: make_frame()'s parts are spread over the threads, then each
// draws pixels with packs of one lane, by the functions that draw tiles on a CPU
// (render/renderer_source.h) and to the same bits.
//
// A warp draws a tile of 8 x 4 pixels. Before that, a thread a tile notes the shapes whose bounds
// on the screen touch it, a bit each, so that the threads of a warp try the same few shapes.
#pragma once

#include "cuda/draw_args.h"
#include "render/frame_source.h"
#include "render/renderer_source.h"

namespace sdpg::cuda {
SDPG_ISA_BEGIN

using Pixel = core::Pack<float, 1>;

inline constexpr int kTileWidth = 8, kTileHeight = 4, kTilePixels = kTileWidth * kTileHeight;
// Tiles whose shapes are noted at a time.
inline constexpr int kTilesAtOnce = 128;

// Divides a block's memory; without any it only counts.
struct PictureMemory {
  render::Canvas<Pixel>* canvas;
  std::uint32_t* touching;  // [kTilesAtOnce][words] a bit for each shape
  unsigned char* frame;     // of make_frame()
  int words;
  std::size_t bytes;

  SDPG_INLINE PictureMemory(const render::SceneArrays& scene, unsigned char* memory) {
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(memory);
    std::uintptr_t at = first;
    const auto take = [&](std::size_t count) {
      const std::uintptr_t out = at;
      at += (count + 63) / 64 * 64;
      return out;
    };
    words = (scene.geoms + 31) / 32;
    canvas = reinterpret_cast<render::Canvas<Pixel>*>(take(sizeof *canvas));
    touching = reinterpret_cast<std::uint32_t*>(
        take(sizeof *touching * static_cast<std::size_t>(kTilesAtOnce * words)));
    frame =
        reinterpret_cast<unsigned char*>(take(render::placing::FrameMemory(scene, nullptr).bytes));
    bytes = at - first;
  }
};

// Whether the hull of two boxes reaches some of width x height pixels, whose first is (x, y).
SDPG_FN bool reaches(const render::ScreenBox* ends, int x, int y, int width, int height) {
  const render::ScreenBox &a = ends[0], &b = ends[1];
  const float top = static_cast<float>(y), bottom = static_cast<float>(y + height - 1);
  if (std::min(a.top, b.top) > bottom || !(std::max(a.bottom, b.bottom) >= top)) return false;
  float left, right;
  render::span(a, b, top, bottom, &left, &right);
  return !(left > static_cast<float>(x + width - 1)) && right >= static_cast<float>(x);
}

// The nearest that a pixel's ray meets: depth, index into frame.shape or -1, number of the
// triangle.
struct Seen {
  Pixel depth, number, triangle;
};

template <render::ShapeType type>
SDPG_PART void meet(const render::Frame& f, int index, const render::Rays<Pixel>& rays,
                    Seen* seen) {
  const render::Shape& s = f.shape[index];
  const auto origin = render::all_lanes<Pixel>(s.origin);
  const auto d = rays.local(s);
  if constexpr (render::is_mesh(type)) {
    Pixel t = seen->depth, triangle = Pixel(-1.0f);
    if (!core::any(render::hit_mesh<false>(s.geom->mesh, origin, d, f.near,
                                           core::all_lanes<Pixel>(), &t, &triangle)))
      return;
    *seen = {t, Pixel(static_cast<float>(index)), triangle};
  } else {
    const Pixel t = render::hit<type>(s, origin, d);
    if (core::any((t >= f.near) & (t < seen->depth)))
      *seen = {t, Pixel(static_cast<float>(index)), Pixel(-1.0f)};
  }
}

// `touching`: the tile's bits. Shapes are tried in order, so that the first of equal depths wins.
SDPG_INLINE Seen look(const render::Canvas<Pixel>& c, int x, int y, const std::uint32_t* touching) {
  const render::Frame& f = c.frame;
  const render::Rays<Pixel> rays = render::rays_of(c, x, y);
  Seen seen{Pixel(f.far), Pixel(-1.0f), Pixel(-1.0f)};
  for (int first = 0; first < f.shapes; first += 32) {
    for (std::uint32_t rest = touching[first / 32]; rest != 0; rest &= rest - 1) {
      const int index = first + render::lowest(rest);
      render::with_type(f.shape[index].geom->type,
                        [&]<render::ShapeType type>() { meet<type>(f, index, rays, &seen); });
    }
  }
  return seen;
}

// A value of a picture into its place in the stack, the frames before it moved up by one.
template <class T>
SDPG_INLINE void push(const DrawArgs& args, std::uint32_t environment, bool anew, std::size_t at,
                      T value) {
  const std::size_t frame = static_cast<std::size_t>(args.view.width) * args.view.height *
                            static_cast<std::size_t>(render::planes(args.view.kind));
  const std::size_t first = environment * frame * static_cast<std::size_t>(args.view.frames) + at;
  const T* from = reinterpret_cast<const T*>(args.from) + first;
  T* to = reinterpret_cast<T*>(args.to) + first;
  for (int f = 1; f < args.view.frames; ++f, from += frame, to += frame)
    *to = anew ? value : from[frame];
  *to = value;
}

// Whether a shape throws its shadow on this pixel of a flat plane.
SDPG_FN bool is_dark(const render::Canvas<Pixel>& c, const render::Shape& plane, int x, int y,
                     Pixel depth) {
  const render::Frame& f = c.frame;
  if (!f.shadows || !plane.is_flat || plane.light < 0 || !render::touches(c, plane.shadows, x, y))
    return false;
  const render::Rays<Pixel> rays = render::rays_of(c, x, y);
  const core::Vec3<Pixel> p{rays.u * depth, rays.v * depth, -depth};
  const auto towards = render::all_lanes<Pixel>(f.light[plane.light].towards);
  for (int i = 0; i < f.shapes; ++i) {
    if (!reaches(plane.thrown[i], x, y, 1, 1)) continue;
    const render::Shape& s = f.shape[i];
    auto dark = core::no_lanes<Pixel>();
    render::with_type(s.geom->type, [&]<render::ShapeType type>() {
      dark = render::in_between<type>(s, p, render::turn_in(s, towards), Pixel(INFINITY),
                                      core::all_lanes<Pixel>());
    });
    if (core::any(dark)) return true;
  }
  return false;
}

SDPG_INLINE std::uint32_t colour_of(const render::Canvas<Pixel>& c, int x, int y,
                                    const Seen& seen) {
  if (core::any(seen.number < 0.0f)) return c.frame.background;
  const render::Shape& shape = c.frame.shape[static_cast<int>(seen.number[0])];
  const float dark = is_dark(c, shape, x, y, seen.depth) ? 1.0f : 0.0f;
  const render::Tile tile{&seen.depth.v, &seen.number.v, &seen.triangle.v, &dark, 0};
  return static_cast<std::uint32_t>(core::integer_bits(render::colour_of_tile(c, x, y, tile)));
}

SDPG_INLINE void draw_pixel(const DrawArgs& args, const render::Canvas<Pixel>& c,
                            std::uint32_t environment, int x, int y,
                            const std::uint32_t* touching) {
  const Seen seen = look(c, x, y, touching);
  const bool anew = args.fresh == nullptr || args.fresh[environment] != 0;
  const std::size_t pixel = static_cast<std::size_t>(y) * args.view.width + x;
  switch (args.view.kind) {
    case render::Kind::kRgb: {
      const std::uint32_t rgb = colour_of(c, x, y, seen);
      const std::size_t plane = static_cast<std::size_t>(args.view.width) * args.view.height;
      for (int k = 0; k < 3; ++k)
        push(args, environment, anew, k * plane + pixel,
             static_cast<std::uint8_t>(rgb >> (8 * k) & 255));
      break;
    }
    case render::Kind::kDepth: {
      float depth = seen.depth[0];
      if (args.view.depth_noise > 0) {
        std::uint32_t words[4];
        render::noise_words({args.seed, environment, args.picture},
                            static_cast<std::uint32_t>(pixel / 4), words);
        depth = render::noisy(c.frame, depth, args.view.depth_noise, words[pixel % 4]);
      }
      push(args, environment, anew, pixel, depth);
      break;
    }
    case render::Kind::kSegmentation: {
      const int index = static_cast<int>(seen.number[0]);
      push(args, environment, anew, pixel,
           static_cast<std::int32_t>(index < 0 ? -1 : c.frame.shape[index].geom->id));
      break;
    }
  }
}

// `memory` is PictureMemory::bytes long and the team's own.
template <class Team>
SDPG_INLINE void draw_picture(const DrawArgs& args, const Team& team, unsigned char* memory,
                              std::uint32_t environment) {
  const PictureMemory m(args.scene, memory);
  render::Canvas<Pixel>& c = *m.canvas;
  const render::Frame& f = c.frame;
  team.once([&] {
    c.columns = args.view.width;
    c.rows = args.view.height;
    c.lane_x = c.lane_y = Pixel(0.0f);
  });
  const std::uint64_t numbers = static_cast<std::uint64_t>(args.scene.nbody) * render::kPoseNumbers;
  render::make_frame(args.scene, args.view, args.pose + environment * numbers, m.frame, true, team,
                     &c.frame);
  const int columns = (args.view.width + kTileWidth - 1) / kTileWidth;
  const int tiles = columns * ((args.view.height + kTileHeight - 1) / kTileHeight);
  const auto left = [=](int tile) { return tile % columns * kTileWidth; };
  const auto top = [=](int tile) { return tile / columns * kTileHeight; };
  for (int first = 0; first < tiles; first += kTilesAtOnce) {
    const int end = first + kTilesAtOnce < tiles ? first + kTilesAtOnce : tiles;
    const auto touching = [&](int tile) { return m.touching + (tile - first) * m.words; };
    team.each(first, end, [&](int tile) {
      for (int from = 0; from < f.shapes; from += 32) {
        std::uint32_t bits = 0;
        for (int i = from; i < f.shapes && i < from + 32; ++i)
          if (reaches(f.shape[i].ends, left(tile), top(tile), kTileWidth, kTileHeight))
            bits |= 1u << (i - from);
        touching(tile)[from / 32] = bits;
      }
    });
    team.each(first * kTilePixels, end * kTilePixels, [&](int i) {
      const int tile = i / kTilePixels, lane = i % kTilePixels;
      const int x = left(tile) + lane % kTileWidth, y = top(tile) + lane / kTileWidth;
      if (x < args.view.width && y < args.view.height)
        draw_pixel(args, c, environment, x, y, touching(tile));
    });
  }
}

// Every picture that is block `number`'s turn; `shared` is plan.near_bytes long.
template <class Team>
SDPG_INLINE void draw_pictures(const DrawArgs& args, const Team& team, unsigned char* shared,
                               std::uint32_t number) {
  unsigned char* const memory =
      args.plan.far_bytes == 0 ? shared : args.far + number * args.plan.far_bytes;
  for (std::uint32_t e = number; e < args.environments; e += args.plan.blocks)
    draw_picture(args, team, memory, e);
}

// The plan but for the number of blocks.
inline PicturePlan plan_picture(const render::SceneArrays& scene, std::size_t shared_bytes) {
  const std::size_t bytes = PictureMemory(scene, nullptr).bytes;
  return bytes <= shared_bytes ? PicturePlan{static_cast<std::uint32_t>(bytes), 0, 0}
                               : PicturePlan{0, bytes, 0};
}

SDPG_ISA_END
}  // namespace sdpg::cuda
