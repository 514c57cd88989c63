// Random scenes that several tests draw.
#pragma once

#include "render/scenes.h"

namespace sdpg::testing {

struct Solid {
  int id, type;
  Numbers size, pos, quat;
};

inline Numbers random_quaternion(std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  Numbers q{normal(random), normal(random), normal(random), normal(random)};
  const double size = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  for (double& x : q) x /= size;
  return q;
}

// A box of these half extents as twelve triangles.
inline void add_box_mesh(SceneBuilder* builder, double x, double y, double z) {
  auto* mesh = builder->model.add_meshes();
  for (int i = 0; i < 8; ++i) {
    mesh->add_vert(static_cast<float>(i & 1 ? x : -x));
    mesh->add_vert(static_cast<float>(i & 2 ? y : -y));
    mesh->add_vert(static_cast<float>(i & 4 ? z : -z));
  }
  for (const int v : {0, 4, 6, 0, 6, 2, 1, 3, 7, 1, 7, 5, 0, 1, 5, 0, 5, 4,
                      2, 6, 7, 2, 7, 3, 0, 2, 3, 0, 3, 1, 4, 5, 7, 4, 7, 6})
    mesh->add_face(v);
}

// Hills of `rows` x `columns` points over 2 x 2 m, up to 0.5 m.
inline void add_hills(SceneBuilder* builder, int rows, int columns, std::mt19937_64& random) {
  auto* field = builder->model.add_hfields();
  field->set_nrow(rows);
  field->set_ncol(columns);
  append({1, 1, 0.5, 0.1}, field->mutable_size());
  for (int i = 0; i < rows * columns; ++i)
    field->add_data(std::uniform_real_distribution<float>(0, 1)(random));
}

// Every shape twice before the camera, over a plane.
inline SceneBuilder random_scene(std::uint64_t seed, std::vector<Solid>* solids) {
  std::mt19937_64 random(seed);
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  SceneBuilder builder(1);
  builder.camera({0, 0, 0});
  const auto add = [&](int type, Numbers size, Numbers pos, Numbers quat) {
    const Numbers colour{uniform(0.2, 1), uniform(0.2, 1), uniform(0.2, 1), 1};
    solids->push_back({builder.geom(type, size, pos, quat, colour), type, size, pos, quat});
  };
  for (const int type : {6, 3, 0, 2, 5, 4, 3, 6, 2, 4, 5}) {
    if (type == 0)
      add(0, {0, 0, 0.1}, {0, 0, -1}, {1, 0, 0, 0});
    else
      add(type, {uniform(0.05, 0.4), uniform(0.05, 0.4), uniform(0.05, 0.4)},
          {uniform(1.5, 5), uniform(-1.5, 1.5), uniform(-1, 1)}, random_quaternion(random));
  }
  return builder;
}

// Everything that can be drawn: every shape, a mesh and a height field under a sun and, for i below
// 4, a spot light. For odd i shapes surround the camera and cross its plane.
inline SceneBuilder crowded_scene(std::uint64_t seed, int i) {
  std::vector<Solid> solids;
  SceneBuilder builder = random_scene(seed + 100 + i, &solids);
  // Into the crowd, so that shapes surround the camera and cross its plane.
  if (i % 2 == 1) builder.model.mutable_cameras(0)->set_pos(0, 2.5);
  builder.light(true, {0, 0, 5}, {0.3, 0.2, -1})->set_castshadow(true);
  // Without it planes are lit alike all over, and shadows on them are bounded on the screen.
  if (i < 4) {
    auto* spot = builder.light(false, {0, 0, 2}, {1, 0, -1});
    spot->set_cutoff(40);
    spot->set_exponent(7);
    for (int c = 0; c < 3; ++c) spot->set_specular(c, 0.4);
    spot->set_castshadow(true);
  }
  std::mt19937_64 random(seed + i);
  add_box_mesh(&builder, 0.3, 0.2, 0.4);
  add_hills(&builder, 12, 17, random);
  auto* geoms = builder.model.mutable_geoms();
  const Numbers quat = random_quaternion(random);
  geoms->set_dataid(builder.geom(7, {0.3, 0.2, 0.4}, {2, 0.5, 0.1}, quat), 0);
  geoms->set_dataid(builder.geom(1, {1, 1, 0.5}, {3, -0.5, -0.9}), 0);
  return builder;
}

}  // namespace sdpg::testing
