// Small models for the renderer's tests, built as messages, and what draws them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "render/renderer.h"
#include "render/scene.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace sdpg::testing {

using Numbers = std::vector<double>;

template <class Array>
void append(const Numbers& numbers, Array* to) {
  for (const double x : numbers) to->Add(x);
}

// A model of the world's body and `bodies` others, all hanging on the world.
class SceneBuilder {
 public:
  explicit SceneBuilder(int bodies = 0) {
    for (int b = 0; b <= bodies; ++b) {
      auto* to = model.mutable_bodies();
      to->add_name(b == 0 ? "world" : "body" + std::to_string(b));
      to->add_parentid(0);
      append({0, 0, 0}, to->mutable_pos());
      append({1, 0, 0, 0}, to->mutable_quat());
      append({0, 0, 0}, to->mutable_ipos());
      to->add_mass(b == 0 ? 0 : 1);
      pose.insert(pose.end(), {0, 0, 0, 1, 0, 0, 0});
    }
  }

  // Index of the geom.
  int geom(int type, Numbers size, Numbers pos, Numbers quat = {1, 0, 0, 0},
           Numbers rgba = {1, 1, 1, 1}, int material = -1, int body = 0) {
    auto* to = model.mutable_geoms();
    size.resize(3, 0);
    to->add_name("geom" + std::to_string(to->type_size()));
    to->add_type(type);
    to->add_bodyid(body);
    append(size, to->mutable_size());
    append(pos, to->mutable_pos());
    append(quat, to->mutable_quat());
    append(rgba, to->mutable_rgba());
    to->add_matid(material);
    to->add_group(0);
    to->add_dataid(-1);
    return to->type_size() - 1;
  }

  // Looks along the world's x with z up, unless told otherwise.
  model::v1::Camera* camera(Numbers pos, Numbers quat = {0.5, 0.5, -0.5, -0.5}, double fovy = 60) {
    auto* to = model.add_cameras();
    to->set_name("camera" + std::to_string(model.cameras_size() - 1));
    to->set_targetbodyid(-1);
    append(pos, to->mutable_pos());
    append(quat, to->mutable_quat());
    append({0, 0, 0}, to->mutable_pos0());
    append({0, 0, -1, -1, 0, 0, 0, 1, 0}, to->mutable_mat0());
    to->set_fovy(fovy);
    return to;
  }

  model::v1::Light* light(bool directional, Numbers pos, Numbers dir) {
    auto* to = model.add_lights();
    to->set_name("light" + std::to_string(model.lights_size() - 1));
    to->set_targetbodyid(-1);
    to->set_directional(directional);
    append(pos, to->mutable_pos());
    append(dir, to->mutable_dir());
    append({0, 0, 0}, to->mutable_pos0());
    append(dir, to->mutable_dir0());
    append({0, 0, 0}, to->mutable_ambient());
    append({0.5, 0.5, 0.5}, to->mutable_diffuse());
    append({0, 0, 0}, to->mutable_specular());
    append({1, 0, 0}, to->mutable_attenuation());
    to->set_cutoff(180);
    return to;
  }

  void place(int body, const Numbers& pos, const Numbers& quat = {1, 0, 0, 0}) {
    for (int i = 0; i < 3; ++i) pose[7 * body + i] = static_cast<float>(pos[i]);
    for (int i = 0; i < 4; ++i) pose[7 * body + 3 + i] = static_cast<float>(quat[i]);
  }

  std::shared_ptr<const render::Scene> scene() const {
    std::string error;
    auto made = render::make_scene(model, &error);
    EXPECT_TRUE(made) << error;
    return made;
  }

  model::v1::Model model;
  std::vector<float> pose;
};

inline view::v1::View view_message(render::Kind kind, int width, int height,
                                   const std::string& camera = "camera0") {
  view::v1::View message;
  message.set_name("view");
  message.set_camera(camera);
  message.set_width(width);
  message.set_height(height);
  message.set_frames(1);
  message.set_kind(static_cast<view::v1::ImageKind>(kind));
  return message;
}

inline const render::Renderer* table(const std::string& isa) {
  std::string error;
  return render::select_renderer(isa, &error);
}

// Bytes of one picture. What is not written stays 0xab.
inline std::vector<unsigned char> draw_bytes(const render::Scene& scene,
                                             const view::v1::View& message,
                                             const std::vector<float>& pose,
                                             const render::NoiseKey& key = {},
                                             const std::string& isa = "") {
  render::View view;
  std::string error;
  EXPECT_TRUE(render::make_view(scene, message, &view, &error)) << error;
  const render::Renderer* renderer = table(isa);
  void* scratch = std::aligned_alloc(64, (renderer->scratch_bytes(scene, view) + 63) / 64 * 64);
  std::memset(scratch, 0xff, renderer->scratch_bytes(scene, view));
  std::vector<unsigned char> pixels(render::frame_bytes(view) + 64, 0xab);
  // One byte off: pixels need no alignment.
  renderer->draw(scene, view, pose.data(), key, pixels.data() + 1, scratch);
  std::free(scratch);
  EXPECT_EQ(pixels[0], 0xab) << "written before the picture";
  for (std::size_t i = render::frame_bytes(view) + 1; i < pixels.size(); ++i)
    EXPECT_EQ(pixels[i], 0xab) << "written " << i - render::frame_bytes(view) << " bytes past it";
  return {pixels.begin() + 1, pixels.begin() + 1 + render::frame_bytes(view)};
}
template <class T>
std::vector<T> draw_values(const render::Scene& scene, const view::v1::View& message,
                           const std::vector<float>& pose, const render::NoiseKey& key = {},
                           const std::string& isa = "") {
  const auto bytes = draw_bytes(scene, message, pose, key, isa);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// Tables this machine can run.
inline std::vector<std::string> all_tables() {
  std::vector<std::string> names;
  for (const char* isa : {"generic", "emulated", "unculled", "avx2", "avx512"})
    if (table(isa) != nullptr) names.push_back(isa);
  return names;
}

}  // namespace sdpg::testing
