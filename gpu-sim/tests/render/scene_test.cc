// Every input that make_scene() and make_view() refuse, and the line they say.
#include <functional>

#include "render/scenes.h"

namespace sdpg {
namespace {

using testing::append;
using testing::SceneBuilder;
using testing::view_message;

// A model that is accepted: every case below spoils one thing of it.
SceneBuilder sound() {
  SceneBuilder builder(1);
  builder.camera({0, 0, 0});
  builder.light(false, {0, 0, 1}, {0, 0, -1});
  builder.geom(2, {0.5}, {3, 0, 0}, {1, 0, 0, 0}, {0.5, 0.5, 0.5, 1}, 0, 1);
  auto* material = builder.model.add_materials();
  material->set_name("red");
  append({1, 0, 0, 1}, material->mutable_rgba());
  append({1, 1, 0, 1}, material->mutable_rgba2());
  append({1, 1}, material->mutable_texrepeat());
  return builder;
}

TEST(Scene, RefusesWhatItCannotDrawByName) {
  using model::v1::Model;
  const struct {
    std::function<void(Model&)> spoil;
    std::string line;
  } cases[] = {
      {[](Model& m) { m.clear_bodies(); }, "bodies: expected at least the world"},
      {[](Model& m) { m.mutable_bodies()->mutable_mass()->RemoveLast(); },
       "bodies.mass: expected 2 numbers, got 1"},
      {[](Model& m) { m.mutable_bodies()->set_parentid(1, 1); },
       "body 'body1': parent 1 does not come before it"},
      {[](Model& m) { m.mutable_geoms()->set_type(0, 9); },
       "geom 'geom0': shape 9 is not drawn; expected a plane (0), height field (1), sphere (2), "
       "capsule (3), ellipsoid (4), cylinder (5), box (6) or mesh (7)"},
      {[](Model& m) { m.mutable_geoms()->set_type(0, 7); },
       "geom 'geom0': no mesh -1; the model has 0"},
      {[](Model& m) {
         m.mutable_geoms()->set_type(0, 7);
         m.mutable_geoms()->set_dataid(0, 0);
         m.add_meshes()->set_name("visor");
       },
       "geom 'geom0': mesh 'visor' has no faces"},
      {[](Model& m) {
         m.mutable_geoms()->set_type(0, 7);
         m.mutable_geoms()->set_dataid(0, 0);
         m.add_meshes()->add_face(0);
         m.mutable_meshes(0)->add_face(0);
       },
       "geom 'geom0': mesh 0: expected three numbers a vertex and a face, got 0 and 2"},
      {[](Model& m) {
         m.mutable_geoms()->set_type(0, 7);
         m.mutable_geoms()->set_dataid(0, 0);
         auto* mesh = m.add_meshes();
         for (const int v : {0, 1, 3}) mesh->add_face(v);
         for (int i = 0; i < 9; ++i) mesh->add_vert(static_cast<float>(i));
       },
       "geom 'geom0': mesh 0: no vertex 3; it has 3"},
      {[](Model& m) { m.mutable_geoms()->set_type(0, 1); },
       "geom 'geom0': no height field -1; the model has 0"},
      {[](Model& m) {
         m.mutable_geoms()->set_type(0, 1);
         m.mutable_geoms()->set_dataid(0, 0);
         m.add_hfields()->set_nrow(2);
       },
       "geom 'geom0': height field 0: expected at least 2 rows and columns, got 2 and 0"},
      {[](Model& m) {
         m.mutable_geoms()->set_type(0, 1);
         m.mutable_geoms()->set_dataid(0, 0);
         auto* field = m.add_hfields();
         field->set_nrow(2);
         field->set_ncol(2);
         field->add_data(0);
       },
       "geom 'geom0': height field 0: data: expected 4 numbers, got 1"},
      {[](Model& m) { m.mutable_geoms()->set_size(0, 0); },
       "geom 'geom0': size: expected above 0, got 0.000000"},
      {[](Model& m) { m.mutable_geoms()->set_pos(1, NAN); }, "geoms.pos: expected finite numbers"},
      {[](Model& m) { m.mutable_geoms()->set_quat(0, 0); },
       "geom 'geom0': quat: expected a quaternion, got zeros"},
      {[](Model& m) { m.mutable_geoms()->add_matid(0); }, "geoms.matid: expected 1, got 2"},
      {[](Model& m) { m.mutable_geoms()->set_bodyid(0, 2); }, "geom 'geom0': no body 2"},
      {[](Model& m) { m.mutable_geoms()->set_matid(0, 1); },
       "geom 'geom0': no material 1; the model has 1"},
      {[](Model& m) { m.mutable_geoms()->set_rgba(0, 1.5); },
       "geom 'geom0': rgba: expected 0 to 1"},
      {[](Model& m) { m.mutable_geoms()->set_rgba(3, 0.5); },
       "geom 'geom0': alpha 0.500000 is not drawn; expected 1 (opaque) or 0 (invisible)"},
      {[](Model& m) { m.mutable_materials(0)->set_rgba(3, 0.5); },
       "geom 'geom0': alpha 0.500000 is not drawn; expected 1 (opaque) or 0 (invisible)"},
      {[](Model& m) { m.mutable_geoms()->set_rgba(0, 1); },
       "geom 'geom0': a colour of its own over the checker of material 'red'; remove the geom's "
       "rgba"},
      {[](Model& m) { m.mutable_materials(0)->set_texrepeat(1, 0); },
       "material 'red': texrepeat: expected above 0, got 0.000000"},
      {[](Model& m) { m.mutable_materials(0)->set_shininess(2); },
       "material 'red': emission, specular, shininess: expected 0 to 1"},
      {[](Model& m) { m.mutable_materials(0)->mutable_rgba()->RemoveLast(); },
       "material 'red': rgba: expected 4 numbers, got 3"},
      {[](Model& m) { m.mutable_cameras(0)->set_fovy(180); },
       "camera 'camera0': fovy: expected between 0 and 180 degrees, got 180.000000"},
      {[](Model& m) { m.mutable_cameras(0)->set_mode(5); },
       "camera 'camera0': unknown mode 5; expected fixed (0), track, trackcom, targetbody or "
       "targetbodycom (4)"},
      {[](Model& m) { m.mutable_cameras(0)->set_bodyid(2); },
       "camera 'camera0': no body 2; the model has 2"},
      {[](Model& m) { m.mutable_cameras(0)->set_mode(3); },
       "camera 'camera0': no target body -1; the model has 2"},
      {[](Model& m) {
         m.mutable_cameras(0)->set_mode(1);
         m.mutable_cameras(0)->clear_mat0();
       },
       "camera 'camera0': mat0: expected 9 numbers, got 0"},
      {[](Model& m) { m.mutable_lights(0)->set_dir(2, 0); },
       "light 'light0': expected a direction, got zeros"},
      {[](Model& m) { m.mutable_lights(0)->set_diffuse(0, 2); },
       "light 'light0': diffuse: expected 0 to 1, got 2.000000"},
      {[](Model& m) { m.mutable_lights(0)->set_attenuation(0, 0); },
       "light 'light0': attenuation: expected a number above 0"},
      {[](Model& m) { m.mutable_lights(0)->set_cutoff(120); },
       "light 'light0': cutoff: expected 0 to 90 or 180 degrees, got 120.000000"},
      {[](Model& m) { m.mutable_lights(0)->set_exponent(200); },
       "light 'light0': exponent: expected 0 to 128, got 200.000000"},
      {[](Model& m) { m.mutable_visual()->add_headlight_diffuse(1); },
       "headlight: ambient: expected 3 numbers, got 0"},
      {[](Model& m) { m.mutable_visual()->add_background(1); },
       "background: expected 3 numbers, got 1"},
  };
  std::string error;
  ASSERT_TRUE(render::make_scene(sound().model, &error)) << error;
  for (const auto& each : cases) {
    SceneBuilder builder = sound();
    each.spoil(builder.model);
    error.clear();
    EXPECT_FALSE(render::make_scene(builder.model, &error)) << each.line;
    EXPECT_EQ(error, each.line);
  }
}

TEST(Scene, RefusesViewsByName) {
  using view::v1::View;
  const auto scene = sound().scene();
  const struct {
    std::function<void(View&)> spoil;
    std::string line;
  } cases[] = {
      {[](View& v) { v.set_name("Left"); },
       "view 'Left': expected a name of 1 to 40 of a-z, 0-9 and _ that starts with a letter"},
      {[](View& v) { v.set_name(std::string(41, 'a')); },
       "view '" + std::string(41, 'a') +
           "': expected a name of 1 to 40 of a-z, 0-9 and _ that starts with a letter"},
      {[](View& v) { v.set_camera("lft"); }, "view 'view': no camera 'lft'; the model has camera0"},
      {[](View& v) { v.set_width(0); }, "view 'view': width: expected 1 to 4096, got 0"},
      {[](View& v) { v.set_height(4097); }, "view 'view': height: expected 1 to 4096, got 4097"},
      {[](View& v) { v.set_frames(17); }, "view 'view': frames: expected 1 to 16, got 17"},
      {[](View& v) { v.clear_kind(); },
       "view 'view': kind 0; expected RGB (1), DEPTH (2) or SEGMENTATION (3)"},
      {[](View& v) { v.set_near(200); },
       "view 'view': near, far: expected 0 < near < far < 1e6 m, got 200.000000 and 100.000000"},
      {[](View& v) { v.set_far(-1); },
       "view 'view': near, far: expected 0 < near < far < 1e6 m, got 0.010000 and -1.000000"},
      {[](View& v) { v.set_depth_noise(0.1); },
       "view 'view': depth_noise: only a DEPTH view has it"},
      {[](View& v) {
         v.set_kind(view::v1::IMAGE_KIND_DEPTH);
         v.set_depth_noise(-1);
       },
       "view 'view': depth_noise: expected at least 0 m, got -1.000000"},
  };
  for (const auto& each : cases) {
    View message = view_message(render::Kind::kRgb, 8, 8);
    render::View view;
    std::string error;
    ASSERT_TRUE(render::make_view(*scene, message, &view, &error)) << error;
    each.spoil(message);
    EXPECT_FALSE(render::make_view(*scene, message, &view, &error)) << each.line;
    EXPECT_EQ(error, each.line);
  }
}

TEST(Scene, ReadsAView) {
  auto message = view_message(render::Kind::kDepth, 87, 58);
  message.set_frames(3);
  message.set_far(2);
  message.set_depth_noise(0.5);
  render::View view;
  std::string error;
  ASSERT_TRUE(render::make_view(*sound().scene(), message, &view, &error)) << error;
  EXPECT_EQ(view.name, "view");
  EXPECT_EQ(view.camera, 0);
  EXPECT_EQ(view.width, 87);
  EXPECT_EQ(view.height, 58);
  EXPECT_EQ(view.frames, 3);
  EXPECT_EQ(view.near, 0.01f);
  EXPECT_EQ(view.far, 2.0f);
  EXPECT_EQ(view.depth_noise, 0.5f);
  EXPECT_EQ(render::frame_bytes(view), 87u * 58 * 4);
}

TEST(Scene, NamesTheTablesItKnows) {
  std::string error;
  EXPECT_FALSE(render::select_renderer("sse9", &error));
  EXPECT_NE(error.find("unknown instruction set 'sse9'; expected one of "), std::string::npos);
}

}  // namespace
}  // namespace sdpg
