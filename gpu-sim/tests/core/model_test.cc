// make_model refuses by name what it cannot simulate and survives any message.
#include <google/protobuf/message.h>

#include <cmath>
#include <functional>

#include "core/block.h"

namespace sdpg::testing {
namespace {

using model::v1::Model;

struct Case {
  const char* name;
  std::function<void(Model&)> spoil;
  const char* expected;  // part of the line
};

TEST(Model, MakeModelNamesWhatItRefuses) {
  const Case cases[] = {
      {"free joint", [](Model& m) { m.mutable_joints()->set_type(0, 0); },
       "joint 'rootx': a free joint must be the only one"},
      {"ball joint", [](Model& m) { m.mutable_joints()->set_type(3, 1); },
       "body 'thigh': its joints and degrees of freedom"},
      {"friction loss", [](Model& m) { m.mutable_dofs()->set_frictionloss(4, -0.1); },
       "joint 'leg': armature, damping, frictionloss"},
      {"colliding mesh", [](Model& m) { m.mutable_geoms()->set_type(4, 7); },
       "geom 'foot' of type mesh"},
      {"condim", [](Model& m) { m.mutable_geoms()->set_condim(1, 5); },
       "geom 'torso': expected condim 1, 3, 4 or 6, got 5"},
      {"radius", [](Model& m) { m.mutable_geoms()->set_size(12, 0); }, "geom 'foot'"},
      {"no mass", [](Model& m) { m.mutable_bodies()->set_mass(2, 0); }, "body 'thigh'"},
      {"negative inertia", [](Model& m) { m.mutable_bodies()->set_inertia(7, -1); },
       "body 'thigh'"},
      {"not finite", [](Model& m) { m.mutable_bodies()->set_pos(3, std::nan("")); },
       "bodies.pos[3]"},
      {"too short", [](Model& m) { m.mutable_joints()->mutable_axis()->RemoveLast(); },
       "joints.axis: expected 18 values, got 17"},
      {"parent after child", [](Model& m) { m.mutable_bodies()->set_parentid(1, 3); },
       "body 'torso'"},
      {"axis", [](Model& m) { m.mutable_joints()->set_axis(0, 0); }, "joint 'rootx': axis"},
      {"range", [](Model& m) { m.mutable_joints()->set_range(6, 5); }, "joint 'thigh'"},
      {"solref", [](Model& m) { m.mutable_geoms()->set_solref(8, -1); }, "geom 'foot'"},
      {"transmission", [](Model& m) { m.mutable_actuators()->set_trntype(0, 3); },
       "actuator 'thigh'"},
      {"driven joint", [](Model& m) { m.mutable_actuators()->set_trnid(1, 99); }, "actuator 'leg'"},
      {"activation", [](Model& m) { m.mutable_actuators()->set_dyntype(2, 1); },
       "actuator 'foot': expected one activation"},
      {"muscle", [](Model& m) { m.mutable_actuators()->set_dyntype(2, 4); },
       "actuator 'foot': activation dynamics 4"},
      {"integrator", [](Model& m) { m.mutable_option()->set_integrator(1); }, "integrator"},
      {"cone", [](Model& m) { m.mutable_option()->set_cone(2); }, "option cone"},
      {"solver", [](Model& m) { m.mutable_option()->set_solver(1); }, "solver"},
      {"timestep", [](Model& m) { m.mutable_option()->set_timestep(0); }, "timestep"},
      {"fluid", [](Model& m) { m.mutable_option()->set_density(1.2); }, "density"},
      {"enable flag", [](Model& m) { m.mutable_option()->set_enableflags(16); }, "enableflags"},
      {"empty", [](Model& m) { m.Clear(); }, "bodies"},
  };
  ASSERT_TRUE(made(hopper_message()));
  for (const Case& c : cases) {
    Model message = hopper_message();
    c.spoil(message);
    std::string error;
    EXPECT_FALSE(core::make_model(message, &error)) << c.name;
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.name << ": " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << c.name;
  }
}

TEST(Model, MakeModelCountsContactsAndRows) {
  const auto m = made(hopper_message());
  EXPECT_EQ(nq(*m), 6);
  EXPECT_EQ(nv(*m), 6);
  EXPECT_EQ(nu(*m), 3);
  EXPECT_EQ(nbody(*m), 5);
  // Four capsules on the floor at two ends each; torso-leg, torso-foot and thigh-foot cross at one
  // point or, parallel, at two.
  EXPECT_EQ(max_contacts(*m), 4 * 2 + 3 * 2);
  EXPECT_EQ(max_rows(*m), 4 * max_contacts(*m) + 2 * 3);
}

// Changes one field of a randomly chosen submessage into something a careless or hostile writer
// might send.
void spoil(google::protobuf::Message* message, std::mt19937_64& random) {
  const auto* reflection = message->GetReflection();
  const auto* descriptor = message->GetDescriptor();
  const auto* field = descriptor->field(static_cast<int>(random() % descriptor->field_count()));
  using F = google::protobuf::FieldDescriptor;
  static const double reals[] = {0, -1, 1e300, -1e300, std::nan(""), INFINITY, 1e-300, 0.5};
  static const std::int32_t integers[] = {0, -1, 1, 2, 3, 7, 1 << 20, INT32_MAX, INT32_MIN};
  const double real = reals[random() % 8];
  const std::int32_t integer = integers[random() % 9];
  if (field->is_repeated()) {
    const int size = reflection->FieldSize(*message, field);
    if (field->cpp_type() == F::CPPTYPE_MESSAGE) return;
    if (random() % 3 == 0 && size > 0) {
      reflection->RemoveLast(message, field);
    } else if (field->cpp_type() == F::CPPTYPE_DOUBLE) {
      if (size == 0 || random() % 5 == 0)
        reflection->AddDouble(message, field, real);
      else
        reflection->SetRepeatedDouble(message, field, static_cast<int>(random() % size), real);
    } else if (field->cpp_type() == F::CPPTYPE_INT32) {
      if (size == 0 || random() % 5 == 0)
        reflection->AddInt32(message, field, integer);
      else
        reflection->SetRepeatedInt32(message, field, static_cast<int>(random() % size), integer);
    } else if (field->cpp_type() == F::CPPTYPE_STRING) {
      reflection->AddString(message, field, "extra");
    }
  } else if (field->cpp_type() == F::CPPTYPE_MESSAGE) {
    spoil(reflection->MutableMessage(message, field), random);
  } else if (field->cpp_type() == F::CPPTYPE_DOUBLE) {
    reflection->SetDouble(message, field, real);
  } else if (field->cpp_type() == F::CPPTYPE_INT32) {
    reflection->SetInt32(message, field, integer);
  }
}

TEST(Model, MakeModelSurvivesSpoiltMessages) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const Model good = hopper_message();
  std::string error;
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat32, "", &error);
  ASSERT_NE(k, nullptr) << error;
  int refused = 0, accepted = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    Model message = good;
    for (int i = 0; i <= trial % 3; ++i) spoil(&message, random);
    error.clear();
    const auto m = core::make_model(message, &error);
    if (!m) {
      ++refused;
      EXPECT_FALSE(error.empty());
      continue;
    }
    // Whatever is accepted can be stepped.
    ++accepted;
    if (accepted % 4 != 0) continue;
    message.mutable_option()->set_iterations(std::min(message.option().iterations(), 5));
    Block block(*m, *k);
    for (int lane = 0; lane < k->lanes; ++lane) block.randomize(lane, random);
    block.step(2);
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(accepted, 100);
}

TEST(Kernels, SelectKernelsSaysWhatItKnows) {
  std::string error;
  EXPECT_EQ(core::select_kernels(core::Precision::kFloat32, "sse9", &error), nullptr);
  EXPECT_NE(error.find("'sse9'"), std::string::npos) << error;
  EXPECT_NE(error.find("generic"), std::string::npos) << error;
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat64, "generic", &error);
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->scalar_bytes, 8);
  EXPECT_STREQ(k->isa, "generic");
}

}  // namespace
}  // namespace sdpg::testing
