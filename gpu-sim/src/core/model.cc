// make_model(): checks a sdpg.model.v1.Model completely and flattens it into the constants of
// model.h. A message that passes can be stepped without further checks; anything the core does not
// do is refused here, by the element's name. Rules for mixing the parameters of two geoms, for
// resolving solref and solimp, and for choosing pairs are those of MuJoCo 3.14
// (https://mujoco.readthedocs.io/en/stable/modeling.html, "Solver parameters", "Collision").
#include "core/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/kernels.h"
#include "sdpg/model/v1/model.pb.h"

namespace sdpg::core {
namespace {

namespace pb = sdpg::model::v1;

constexpr double kTiny = 1e-15;             // mjMINVAL
constexpr double kLeastFriction = 1e-5;     // mjMINMU
constexpr double kLeastImpedance = 0.0001;  // mjMINIMP
constexpr double kMostImpedance = 0.9999;   // mjMAXIMP

enum DisableBit {
  kNoConstraint = 1 << 0,
  kNoLimit = 1 << 3,
  kNoContact = 1 << 4,
  kNoSpring = 1 << 5,
  kNoDamper = 1 << 6,
  kNoGravity = 1 << 7,
  kNoClampCtrl = 1 << 8,
  kNoWarmStart = 1 << 9,
  kNoFilterParent = 1 << 10,
  kNoActuation = 1 << 11,
  kNoRefSafe = 1 << 12,
  kNoEulerDamp = 1 << 15,
  kDisableBits = 20,
};

enum GeomType { kPlane = 0, kSphere = 2, kCapsule = 3, kGeomTypes = 9 };

struct Refusal {
  std::string line;
};
[[noreturn]] void refuse(std::string line) { throw Refusal{std::move(line)}; }

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

// The constants together with the memory they point into.
struct OwnedModel : Model {
  std::deque<std::vector<unsigned char>> memory;

  template <class T>
  const T* own(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<unsigned char>& bytes = memory.emplace_back(values.size() * sizeof(T) + 1);
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), values.size() * sizeof(T));
    return reinterpret_cast<const T*>(bytes.data());
  }
  void own(const float* Constants<float>::*single, const double* Constants<double>::*full,
           const std::vector<double>& values) {
    f.*single = own(std::vector<float>(values.begin(), values.end()));
    d.*full = own(values);
  }
};

template <class To>
Softness<To> convert(const Softness<double>& from) {
  const auto c = [](double x) { return static_cast<To>(x); };
  return {
      c(from.stiffness),      c(from.damping),  c(from.d0),    c(from.rise),  c(from.one_minus_d1),
      c(from.inverse_width),  c(from.midpoint), c(from.power), c(from.below), c(from.above),
      c(from.inverse_weight), c(from.margin),   from.shape};
}

void own_softness(OwnedModel& out, const Softness<float>* Constants<float>::*single,
                  const Softness<double>* Constants<double>::*full,
                  const std::vector<Softness<double>>& values) {
  std::vector<Softness<float>> singles;
  for (const Softness<double>& s : values) singles.push_back(convert<float>(s));
  out.f.*single = out.own(singles);
  out.d.*full = out.own(values);
}

// Columns of the rotation matrix of a unit quaternion.
void rotation_columns(const double* q, double columns[3][3]) {
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  const double m[3][3] = {{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
                          {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
                          {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}};
  std::memcpy(columns, m, sizeof m);
}

class Builder {
 public:
  explicit Builder(const pb::Model& message) : in(message) {}

  std::shared_ptr<const Model> build() {
    sizes();
    options();
    bodies();
    joints();
    geoms();
    pairs();
    patterns();
    actuators();
    return out;
  }

 private:
  const pb::Model& in;
  std::shared_ptr<OwnedModel> out = std::make_shared<OwnedModel>();
  int nbody = 0, nv = 0, ngeom = 0, nu = 0, disabled = 0;
  std::vector<int> body_root, body_weld;
  std::vector<std::vector<int>> chain;  // ascending degrees of freedom that move each body

  // ---- names and elementary checks --------------------------------------------------------------

  std::string body(int i) const { return "body '" + in.bodies().name(i) + "'"; }
  std::string joint(int i) const { return "joint '" + in.joints().name(i) + "'"; }
  std::string geom(int i) const { return "geom '" + in.geoms().name(i) + "'"; }
  std::string actuator(int i) const { return "actuator '" + in.actuators().name(i) + "'"; }

  template <class Repeated>
  static void expect_size(const Repeated& field, int count, int each, const char* what) {
    if (field.size() != static_cast<int>(count * each))
      refuse(std::string("model: ") + what + ": expected " + std::to_string(count * each) +
             " values, got " + std::to_string(field.size()) + "; compile the model again");
  }
  template <class Repeated>
  static std::vector<double> reals(const Repeated& field, int count, int each, const char* what) {
    expect_size(field, count, each, what);
    for (int i = 0; i < field.size(); ++i)
      if (!std::isfinite(field.Get(i)))
        refuse(std::string("model: ") + what + "[" + std::to_string(i) +
               "]: expected a finite number, got " + number(field.Get(i)));
    return std::vector<double>(field.begin(), field.end());
  }
  static double finite(double x, const char* what) {
    if (!std::isfinite(x))
      refuse(std::string("model: ") + what + ": expected a finite number, got " + number(x));
    return x;
  }
  static void normalize(double* q, int n, const std::string& what) {
    double square = 0;
    for (int i = 0; i < n; ++i) square += q[i] * q[i];
    const double length = std::sqrt(square);
    if (!(std::abs(length - 1) < 1e-3)) refuse(what + ": expected length 1, got " + number(length));
    // A length within rounding of 1 is left alone, so that the numbers stay MuJoCo's.
    if (std::abs(length - 1) > 1e-14)
      for (int i = 0; i < n; ++i) q[i] /= length;
  }

  // ---- parts ------------------------------------------------------------------------------------

  void sizes() {
    const auto count = [](int n, int most, const char* what) {
      if (n > most)
        refuse(std::string("model: at most ") + std::to_string(most) + " " + what +
               " are supported, got " + std::to_string(n));
      return n;
    };
    nbody = count(in.bodies().name_size(), kMaxBodies, "bodies");
    nv = count(in.joints().name_size(), kMaxDofs, "joints");
    ngeom = count(in.geoms().name_size(), kMaxGeoms, "geoms");
    nu = count(in.actuators().name_size(), kMaxDofs, "actuators");
    if (nbody < 2)
      refuse("model: expected the world and at least one body, got " + std::to_string(nbody) +
             " bodies");
    if (nv < 1) refuse("model: no joint, so nothing can move; add one");
    out->nbody = nbody;
    out->nq = out->nv = out->njnt = nv;
    out->ngeom = ngeom;
    out->nu = nu;
  }

  void options() {
    const pb::Option& o = in.option();
    if (!(o.timestep() > 0 && o.timestep() <= 1))
      refuse("option timestep: expected above 0 and at most 1 s, got " + number(o.timestep()));
    const std::vector<double> gravity = reals(o.gravity(), 1, 3, "option gravity");
    if (o.integrator() != 0)
      refuse("unsupported: option integrator " + std::to_string(o.integrator()) +
             "; use Euler (0)");
    if (o.cone() != 0) refuse("unsupported: option cone elliptic; use pyramidal");
    if (o.solver() != 2)
      refuse("unsupported: option solver " + std::to_string(o.solver()) + "; use Newton (2)");
    if (o.iterations() < 1 || o.iterations() > 10000)
      refuse("option iterations: expected 1 to 10000, got " + std::to_string(o.iterations()));
    if (o.ls_iterations() < 1 || o.ls_iterations() > 10000)
      refuse("option ls_iterations: expected 1 to 10000, got " + std::to_string(o.ls_iterations()));
    if (!(finite(o.tolerance(), "option tolerance") >= 0))
      refuse("option tolerance: expected at least 0, got " + number(o.tolerance()));
    if (!(finite(o.impratio(), "option impratio") > 0))
      refuse("option impratio: expected above 0, got " + number(o.impratio()));
    disabled = o.disableflags();
    if (disabled < 0 || disabled >= 1 << kDisableBits)
      refuse("unsupported: option disableflags " + std::to_string(disabled));
    if (o.enableflags() != 0)
      refuse("unsupported: option enableflags " + std::to_string(o.enableflags()) + "; use 0");
    if (o.density() != 0) refuse("unsupported: option density " + number(o.density()));
    if (o.viscosity() != 0) refuse("unsupported: option viscosity " + number(o.viscosity()));
    if (!(finite(in.stat_meaninertia(), "stat_meaninertia") > 0))
      refuse("model: stat_meaninertia: expected above 0, got " + number(in.stat_meaninertia()));

    out->iterations = o.iterations();
    out->ls_iterations = o.ls_iterations();
    out->warm_start = !(disabled & kNoWarmStart);
    const auto fill = [&](auto& k) {
      using T = std::decay_t<decltype(k.timestep)>;
      k.timestep = static_cast<T>(o.timestep());
      for (int i = 0; i < 3; ++i)
        k.gravity[i] = disabled & kNoGravity ? T(0) : static_cast<T>(gravity[i]);
      k.solver_scale = static_cast<T>(1 / (in.stat_meaninertia() * nv));
      k.tolerance = static_cast<T>(o.tolerance());
    };
    fill(out->f);
    fill(out->d);
  }

  void bodies() {
    const pb::Bodies& b = in.bodies();
    expect_size(b.parentid(), nbody, 1, "bodies.parentid");
    expect_size(b.rootid(), nbody, 1, "bodies.rootid");
    expect_size(b.weldid(), nbody, 1, "bodies.weldid");
    expect_size(b.jntnum(), nbody, 1, "bodies.jntnum");
    expect_size(b.jntadr(), nbody, 1, "bodies.jntadr");
    expect_size(b.dofnum(), nbody, 1, "bodies.dofnum");
    expect_size(b.dofadr(), nbody, 1, "bodies.dofadr");
    expect_size(b.geomnum(), nbody, 1, "bodies.geomnum");
    expect_size(b.geomadr(), nbody, 1, "bodies.geomadr");
    std::vector<int> parent(nbody), first(nbody + 1);
    body_root.assign(nbody, 0);
    body_weld.assign(nbody, 0);
    int next = 0;
    for (int i = 0; i < nbody; ++i) {
      parent[i] = b.parentid(i);
      if (i == 0 ? parent[i] != 0 : (parent[i] < 0 || parent[i] >= i))
        refuse(body(i) + ": expected a parent that comes before it, got " +
               std::to_string(parent[i]));
      body_root[i] = i == 0 ? 0 : parent[i] == 0 ? i : body_root[parent[i]];
      const int joints = b.jntnum(i);
      if (joints < 0 || joints > nv - next || (i == 0 && joints != 0))
        refuse(body(i) + ": jntnum " + std::to_string(joints) + " does not fit " +
               std::to_string(nv) + " joints");
      if ((joints > 0 && b.jntadr(i) != next) || b.dofnum(i) != joints ||
          (joints > 0 && b.dofadr(i) != next))
        refuse(body(i) + ": its joints and degrees of freedom are not numbered body by body");
      first[i] = next;
      next += joints;
      body_weld[i] = i == 0 || joints > 0 ? i : body_weld[parent[i]];
      if (b.rootid(i) != body_root[i] || b.weldid(i) != body_weld[i])
        refuse(body(i) + ": rootid or weldid contradicts its parent; compile the model again");
    }
    first[nbody] = next;
    if (next != nv)
      refuse("model: bodies own " + std::to_string(next) + " joints of " + std::to_string(nv));

    const std::vector<double> pos = reals(b.pos(), nbody, 3, "bodies.pos");
    std::vector<double> quat = reals(b.quat(), nbody, 4, "bodies.quat");
    const std::vector<double> ipos = reals(b.ipos(), nbody, 3, "bodies.ipos");
    std::vector<double> iquat = reals(b.iquat(), nbody, 4, "bodies.iquat");
    const std::vector<double> mass = reals(b.mass(), nbody, 1, "bodies.mass");
    const std::vector<double> inertia = reals(b.inertia(), nbody, 3, "bodies.inertia");
    const std::vector<double> gravcomp = reals(b.gravcomp(), nbody, 1, "bodies.gravcomp");
    reals(b.invweight0(), nbody, 2, "bodies.invweight0");
    std::vector<double> carried(nbody, 0.0), base(nbody), weight(nbody * 2), axis(nbody * 6);
    std::vector<std::uint8_t> turned(nbody), axes(nbody);
    for (int i = 0; i < nbody; ++i) {
      normalize(&quat[4 * i], 4, body(i) + ": quat");
      normalize(&iquat[4 * i], 4, body(i) + ": iquat");
      turned[i] = !(quat[4 * i] == 1);
      if (mass[i] < 0) refuse(body(i) + ": expected mass at least 0 kg, got " + number(mass[i]));
      const double* I = &inertia[3 * i];
      for (int k = 0; k < 3; ++k)
        if (I[k] < 0) refuse(body(i) + ": expected inertia at least 0, got " + number(I[k]));
      if (gravcomp[i] != 0) refuse("unsupported: " + body(i) + ": gravcomp " + number(gravcomp[i]));
      if (b.invweight0(2 * i) < 0 || b.invweight0(2 * i + 1) < 0)
        refuse(body(i) + ": invweight0 is negative");
      carried[body_weld[i]] += mass[i];

      // base * 1 plus at most two rank-one terms; bodies of revolution need one, spheres none.
      double columns[3][3];
      rotation_columns(&iquat[4 * i], columns);
      const double same = 1e-14 * std::max({I[0], I[1], I[2]});
      int odd = -1;  // axis of revolution
      for (int k = 0; k < 3; ++k)
        if (std::abs(I[(k + 1) % 3] - I[(k + 2) % 3]) <= same) odd = k;
      base[i] = odd < 0 ? I[2] : I[(odd + 1) % 3];
      const int terms[2] = {odd < 0 ? 0 : odd, 1};
      axes[i] = odd < 0 ? 2 : std::abs(I[odd] - base[i]) <= same ? 0 : 1;
      for (int t = 0; t < axes[i]; ++t) {
        weight[2 * i + t] = I[terms[t]] - base[i];
        for (int k = 0; k < 3; ++k) axis[3 * (2 * i + t) + k] = columns[terms[t]][k];
      }
    }
    for (int i = 1; i < nbody; ++i)
      if (body_weld[i] == i && carried[i] < kTiny)
        refuse(body(i) + ": moves but has no mass; give it or a body fixed to it a geom with mass");

    out->body_parent = out->own(parent);
    out->body_root = out->own(body_root);
    out->body_jnt = out->body_dof = out->own(first);
    out->body_turned = out->own(turned);
    out->inertia_axes = out->own(axes);
    out->own(&Constants<float>::body_pos, &Constants<double>::body_pos, pos);
    out->own(&Constants<float>::body_quat, &Constants<double>::body_quat, quat);
    out->own(&Constants<float>::body_ipos, &Constants<double>::body_ipos, ipos);
    out->own(&Constants<float>::body_mass, &Constants<double>::body_mass, mass);
    out->own(&Constants<float>::inertia_base, &Constants<double>::inertia_base, base);
    out->own(&Constants<float>::inertia_weight, &Constants<double>::inertia_weight, weight);
    out->own(&Constants<float>::inertia_axis, &Constants<double>::inertia_axis, axis);

    chain.assign(nbody, {});
    for (int i = 1; i < nbody; ++i) {
      chain[i] = chain[parent[i]];
      for (int j = first[i]; j < first[i + 1]; ++j) chain[i].push_back(j);
    }
  }

  // solref and solimp of one constraint as MuJoCo resolves them. `margin` as in the model,
  // `inverse_weight` of the regularisation.
  Softness<double> soften(const std::string& what, const double* ref, const double* imp,
                          double margin, double inverse_weight) const {
    double time = ref[0], ratio = ref[1];
    if ((time > 0) != (ratio > 0))
      refuse(what + ": solref mixes the two formats: " + number(time) + " " + number(ratio));
    if (time > 0 && !(disabled & kNoRefSafe)) time = std::max(time, 2 * in.option().timestep());
    const auto bound = [](double x) {
      return std::min(kMostImpedance, std::max(kLeastImpedance, x));
    };
    const double d0 = bound(imp[0]), d1 = bound(imp[1]), width = std::max(0.0, imp[2]);
    const double middle = bound(imp[3]), power = std::max(1.0, imp[4]);

    Softness<double> s{};
    s.stiffness = time > 0 ? 1 / std::max(kTiny, d1 * d1 * time * time * ratio * ratio)
                           : -time / std::max(kTiny, d1 * d1);
    s.damping = ratio > 0 ? 2 / std::max(kTiny, d1 * time) : -ratio / std::max(kTiny, d1);
    s.margin = margin;
    s.inverse_weight = inverse_weight;
    s.power = power;
    s.midpoint = middle;
    if (d0 == d1 || width <= kTiny) {
      s.shape = 0;
      s.d0 = 0.5 * (d0 + d1);
      s.one_minus_d1 = 1 - s.d0;
    } else {
      s.shape = power == 1 ? 1 : power == 2 ? 2 : 3;
      s.d0 = d0;
      s.rise = d1 - d0;
      s.one_minus_d1 = 1 - d1;
      s.inverse_width = 1 / width;
      s.below = 1 / std::pow(middle, power - 1);
      s.above = 1 / std::pow(1 - middle, power - 1);
    }
    return s;
  }

  void joints() {
    const pb::Joints& j = in.joints();
    const pb::Dofs& d = in.dofs();
    expect_size(j.type(), nv, 1, "joints.type");
    for (int i = 0; i < nv; ++i) {
      if (j.type(i) == 0) refuse("unsupported: " + joint(i) + " of type free");
      if (j.type(i) == 1) refuse("unsupported: " + joint(i) + " of type ball");
      if (j.type(i) != 2 && j.type(i) != 3)
        refuse(joint(i) + ": unknown type " + std::to_string(j.type(i)));
    }
    expect_size(j.qposadr(), nv, 1, "joints.qposadr");
    expect_size(j.dofadr(), nv, 1, "joints.dofadr");
    expect_size(j.bodyid(), nv, 1, "joints.bodyid");
    expect_size(j.limited(), nv, 1, "joints.limited");
    expect_size(d.bodyid(), nv, 1, "dofs.bodyid");
    expect_size(d.jntid(), nv, 1, "dofs.jntid");
    expect_size(d.parentid(), nv, 1, "dofs.parentid");
    std::vector<JointType> type(nv);
    std::vector<int> dof_body(nv), limited;
    for (int i = 0; i < nv; ++i) {
      type[i] = static_cast<JointType>(j.type(i));
      int owner = 0;
      while (out->body_dof[owner + 1] <= i) ++owner;
      dof_body[i] = owner;
      const std::vector<int>& own = chain[owner];
      const auto at = std::find(own.begin(), own.end(), i);
      const int before = at == own.begin() ? -1 : *(at - 1);
      if (j.qposadr(i) != i || j.dofadr(i) != i || j.bodyid(i) != owner || d.bodyid(i) != owner ||
          d.jntid(i) != i || d.parentid(i) != before)
        refuse(joint(i) + ": its indices contradict the bodies; compile the model again");
    }
    const std::vector<double> pos = reals(j.pos(), nv, 3, "joints.pos");
    std::vector<double> axis = reals(j.axis(), nv, 3, "joints.axis");
    std::vector<double> range = reals(j.range(), nv, 2, "joints.range");
    const std::vector<double> margin = reals(j.margin(), nv, 1, "joints.margin");
    const std::vector<double> solref = reals(j.solref(), nv, 2, "joints.solref");
    const std::vector<double> solimp = reals(j.solimp(), nv, 5, "joints.solimp");
    std::vector<double> stiffness = reals(j.stiffness(), nv, 1, "joints.stiffness");
    const std::vector<double> armature = reals(d.armature(), nv, 1, "dofs.armature");
    std::vector<double> damping = reals(d.damping(), nv, 1, "dofs.damping");
    const std::vector<double> friction = reals(d.frictionloss(), nv, 1, "dofs.frictionloss");
    reals(d.solref(), nv, 2, "dofs.solref");
    reals(d.solimp(), nv, 5, "dofs.solimp");
    const std::vector<double> invweight = reals(d.invweight0(), nv, 1, "dofs.invweight0");
    std::vector<Softness<double>> soft(nv);
    for (int i = 0; i < nv; ++i) {
      normalize(&axis[3 * i], 3, joint(i) + ": axis");
      if (friction[i] != 0)
        refuse("unsupported: " + joint(i) + ": frictionloss " + number(friction[i]));
      if (armature[i] < 0 || damping[i] < 0 || stiffness[i] < 0 || invweight[i] < 0)
        refuse(joint(i) + ": armature, damping, stiffness and invweight0 must be at least 0");
      if (j.limited(i) != 0 && j.limited(i) != 1)
        refuse(joint(i) + ": limited: expected 0 or 1, got " + std::to_string(j.limited(i)));
      if (disabled & kNoSpring) stiffness[i] = 0;
      if (disabled & kNoDamper) damping[i] = 0;
      if (stiffness[i] != 0) out->has_stiffness = true;
      if (damping[i] != 0 && !(disabled & kNoEulerDamp)) out->implicit_damping = true;
      if (!j.limited(i) || disabled & (kNoLimit | kNoConstraint)) continue;
      if (!(range[2 * i] < range[2 * i + 1]))
        refuse(joint(i) + ": expected an increasing range, got " + number(range[2 * i]) + " to " +
               number(range[2 * i + 1]));
      limited.push_back(i);
      soft[i] = soften(joint(i), &solref[2 * i], &solimp[5 * i], margin[i], invweight[i]);
    }
    out->jnt_type = out->own(type);
    out->dof_body = out->own(dof_body);
    out->nlimited = static_cast<int>(limited.size());
    out->max_limits = 2 * out->nlimited;
    out->limited = out->own(limited);
    out->own(&Constants<float>::jnt_pos, &Constants<double>::jnt_pos, pos);
    out->own(&Constants<float>::jnt_axis, &Constants<double>::jnt_axis, axis);
    out->own(&Constants<float>::jnt_range, &Constants<double>::jnt_range, range);
    out->own(&Constants<float>::stiffness, &Constants<double>::stiffness, stiffness);
    out->own(&Constants<float>::armature, &Constants<double>::armature, armature);
    out->own(&Constants<float>::damping, &Constants<double>::damping, damping);
    out->own(&Constants<float>::qpos0, &Constants<double>::qpos0,
             reals(in.qpos0(), nv, 1, "qpos0"));
    out->own(&Constants<float>::qpos_spring, &Constants<double>::qpos_spring,
             reals(in.qpos_spring(), nv, 1, "qpos_spring"));
    own_softness(*out, &Constants<float>::limit, &Constants<double>::limit, soft);
  }

  void geoms() {
    const pb::Geoms& g = in.geoms();
    expect_size(g.type(), ngeom, 1, "geoms.type");
    expect_size(g.bodyid(), ngeom, 1, "geoms.bodyid");
    expect_size(g.contype(), ngeom, 1, "geoms.contype");
    expect_size(g.conaffinity(), ngeom, 1, "geoms.conaffinity");
    expect_size(g.condim(), ngeom, 1, "geoms.condim");
    expect_size(g.priority(), ngeom, 1, "geoms.priority");
    const std::vector<double> size = reals(g.size(), ngeom, 3, "geoms.size");
    const std::vector<double> pos = reals(g.pos(), ngeom, 3, "geoms.pos");
    std::vector<double> quat = reals(g.quat(), ngeom, 4, "geoms.quat");
    reals(g.friction(), ngeom, 3, "geoms.friction");
    reals(g.solmix(), ngeom, 1, "geoms.solmix");
    reals(g.solref(), ngeom, 2, "geoms.solref");
    reals(g.solimp(), ngeom, 5, "geoms.solimp");
    reals(g.margin(), ngeom, 1, "geoms.margin");
    reals(g.gap(), ngeom, 1, "geoms.gap");
    std::vector<int> owner(g.bodyid().begin(), g.bodyid().end());
    std::vector<double> axis(ngeom * 3), shape(ngeom * 2);
    int next = 0;
    for (int b = 0; b < nbody; ++b) {
      const int count = in.bodies().geomnum(b);
      if (count < 0 || count > ngeom - next || (count > 0 && in.bodies().geomadr(b) != next))
        refuse(body(b) + ": its geoms are not numbered body by body");
      for (int i = next; i < next + count; ++i)
        if (owner[i] != b)
          refuse(geom(i) + ": bodyid " + std::to_string(owner[i]) + " contradicts the bodies");
      next += count;
    }
    if (next != ngeom)
      refuse("model: bodies own " + std::to_string(next) + " geoms of " + std::to_string(ngeom));
    for (int i = 0; i < ngeom; ++i) {
      if (g.type(i) < 0 || g.type(i) >= kGeomTypes)
        refuse(geom(i) + ": unknown type " + std::to_string(g.type(i)));
      normalize(&quat[4 * i], 4, geom(i) + ": quat");
      double columns[3][3];
      rotation_columns(&quat[4 * i], columns);
      for (int k = 0; k < 3; ++k) axis[3 * i + k] = columns[2][k];
      shape[2 * i] = size[3 * i];
      shape[2 * i + 1] = size[3 * i + 1];
    }
    out->geom_body = out->own(owner);
    out->own(&Constants<float>::geom_pos, &Constants<double>::geom_pos, pos);
    out->own(&Constants<float>::geom_axis, &Constants<double>::geom_axis, axis);
    out->own(&Constants<float>::geom_size, &Constants<double>::geom_size, shape);
  }

  bool bodies_may_touch(int b1, int b2) const {
    const int w1 = body_weld[b1], w2 = body_weld[b2];
    if (w1 == w2) return false;
    if (!(disabled & kNoFilterParent) && w1 != 0 && w2 != 0) {
      const int p1 = body_weld[in.bodies().parentid(w1)], p2 = body_weld[in.bodies().parentid(w2)];
      if (w1 == p2 || w2 == p1) return false;
    }
    for (const std::int32_t signature : in.exclude_signature()) {
      const int e1 = signature >> 16 & 0xffff, e2 = signature & 0xffff;
      if ((e1 == b1 && e2 == b2) || (e1 == b2 && e2 == b1)) return false;
    }
    return true;
  }

  void check_shape(int i) const {
    const pb::Geoms& g = in.geoms();
    const int type = g.type(i);
    if (type != kPlane && type != kSphere && type != kCapsule) {
      static const char* names[kGeomTypes] = {
          "plane", "hfield", "sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh", "sdf"};
      refuse("unsupported: " + geom(i) + " of type " + names[type] +
             " collides; use plane, sphere or capsule, or set contype and conaffinity to 0");
    }
    if (type != kPlane && !(g.size(3 * i) > 0))
      refuse(geom(i) + ": expected a radius above 0, got " + number(g.size(3 * i)));
    if (type == kPlane && body_weld[g.bodyid(i)] != 0)
      refuse("unsupported: " + geom(i) + ": a plane on a moving body; fix it to the world");
    if (type == kCapsule && !(g.size(3 * i + 1) > 0))
      refuse(geom(i) + ": expected a half length above 0, got " + number(g.size(3 * i + 1)));
    if (g.condim(i) != 1 && g.condim(i) != 3)
      refuse("unsupported: " + geom(i) + ": condim " + std::to_string(g.condim(i)) +
             "; use 1 or 3");
    if (g.friction(3 * i) < 0 || g.solmix(i) < 0 || g.margin(i) < 0 || g.gap(i) < 0)
      refuse(geom(i) + ": friction, solmix, margin and gap must be at least 0");
  }

  void add_pair(int g1, int g2, std::vector<Pair>& pair, std::vector<Softness<double>>& soft,
                std::vector<double>& friction, std::vector<int>& dofs,
                std::vector<std::int8_t>& signs) {
    const pb::Geoms& g = in.geoms();
    if (g.type(g1) > g.type(g2)) std::swap(g1, g2);
    if (g.type(g1) == kPlane && g.type(g2) == kPlane) return;  // planes never touch each other
    check_shape(g1);
    check_shape(g2);
    Pair p{};
    p.geom1 = g1;
    p.geom2 = g2;
    p.body1 = g.bodyid(g1);
    p.body2 = g.bodyid(g2);
    const bool capsule = g.type(g2) == kCapsule;
    if (g.type(g1) == kPlane) {
      p.kind = capsule ? PairKind::kPlaneCapsule : PairKind::kPlaneSphere;
      p.contacts = capsule ? 2 : 1;
    } else if (g.type(g1) == kSphere) {
      p.kind = capsule ? PairKind::kSphereCapsule : PairKind::kSphereSphere;
      p.contacts = 1;
    } else {
      p.kind = PairKind::kCapsuleCapsule;
      p.contacts = 3;  // crossing lanes make one, parallel lanes up to two
    }

    // Parameters of the pair: from the geom of higher priority, else mixed.
    double ref[2], imp[5], mu;
    if (g.priority(g1) != g.priority(g2)) {
      const int chosen = g.priority(g1) > g.priority(g2) ? g1 : g2;
      p.condim = g.condim(chosen);
      mu = g.friction(3 * chosen);
      for (int i = 0; i < 2; ++i) ref[i] = g.solref(2 * chosen + i);
      for (int i = 0; i < 5; ++i) imp[i] = g.solimp(5 * chosen + i);
    } else {
      p.condim = std::max(g.condim(g1), g.condim(g2));
      mu = std::max(g.friction(3 * g1), g.friction(3 * g2));
      const double m1 = g.solmix(g1), m2 = g.solmix(g2);
      const double mix = m1 >= kTiny && m2 >= kTiny ? m1 / (m1 + m2)
                         : m1 < kTiny && m2 < kTiny ? 0.5
                         : m1 < kTiny               ? 0.0
                                                    : 1.0;
      const bool standard = g.solref(2 * g1) > 0 && g.solref(2 * g2) > 0;
      for (int i = 0; i < 2; ++i) {
        const double r1 = g.solref(2 * g1 + i), r2 = g.solref(2 * g2 + i);
        ref[i] = standard ? mix * r1 + (1 - mix) * r2 : std::min(r1, r2);
      }
      for (int i = 0; i < 5; ++i)
        imp[i] = mix * g.solimp(5 * g1 + i) + (1 - mix) * g.solimp(5 * g2 + i);
    }
    mu = std::max(mu, kLeastFriction);

    // The regularisation of a pyramid's edges follows from that of the first friction direction.
    const double weight = in.bodies().invweight0(2 * p.body1) + in.bodies().invweight0(2 * p.body2);
    const double edge = p.condim == 1 ? weight
                                      : 2 * mu * mu / std::max(kTiny, in.option().impratio()) *
                                            (weight + mu * mu * weight);
    // The contact acts below the sum of the margins; a gap only lets inactive contacts be reported.
    const double margin = g.margin(g1) + g.margin(g2);
    p.dof_begin = static_cast<int>(dofs.size());
    const std::vector<int>&c1 = chain[p.body1], &c2 = chain[p.body2];
    for (int j = 0; j < nv; ++j) {
      const bool first = std::binary_search(c1.begin(), c1.end(), j);
      const bool second = std::binary_search(c2.begin(), c2.end(), j);
      if (first == second) continue;  // moves both alike, or neither
      dofs.push_back(j);
      signs.push_back(second ? 1 : -1);
    }
    p.dof_count = static_cast<int>(dofs.size()) - p.dof_begin;
    soft.push_back(soften(geom(g1) + " and " + geom(g2), ref, imp, margin, edge));
    friction.push_back(mu);
    pair.push_back(p);
    if (pair.size() > kMaxPairs)
      refuse("model: more than " + std::to_string(kMaxPairs) +
             " pairs of geoms may touch; exclude some or set contype and conaffinity");
  }

  void pairs() {
    const pb::Geoms& g = in.geoms();
    std::vector<Pair> pair;
    std::vector<Softness<double>> soft;
    std::vector<double> friction;
    std::vector<int> dofs;
    std::vector<std::int8_t> signs;
    const bool on = !(disabled & (kNoConstraint | kNoContact));
    for (int b1 = 0; on && b1 < nbody; ++b1)
      for (int b2 = b1 + 1; b2 < nbody; ++b2) {
        if (!bodies_may_touch(b1, b2)) continue;
        for (int g1 = in.bodies().geomadr(b1), i = 0; i < in.bodies().geomnum(b1); ++i, ++g1)
          for (int g2 = in.bodies().geomadr(b2), k = 0; k < in.bodies().geomnum(b2); ++k, ++g2)
            if ((g.contype(g1) & g.conaffinity(g2)) || (g.contype(g2) & g.conaffinity(g1)))
              add_pair(g1, g2, pair, soft, friction, dofs, signs);
      }
    std::set<int> used;
    for (const Pair& p : pair) {
      used.insert({p.geom1, p.geom2});
      out->max_contacts += p.contacts;
      out->max_chain = std::max(out->max_chain, p.dof_count);
    }
    out->npair = static_cast<int>(pair.size());
    out->pair = out->own(pair);
    out->pair_dof = out->own(dofs);
    out->pair_sign = out->own(signs);
    out->used_geoms = static_cast<int>(used.size());
    out->used_geom = out->own(std::vector<int>(used.begin(), used.end()));
    own_softness(*out, &Constants<float>::contact, &Constants<double>::contact, soft);
    out->own(&Constants<float>::friction, &Constants<double>::friction, friction);
  }

  void patterns() {
    std::vector<std::set<int>> rows(nv);
    for (int i = 0; i < nv; ++i)
      for (const int j : chain[out->dof_body[i]])
        if (j < i) rows[i].insert(j);
    out->mass = pattern(rows);
    for (int p = 0; p < out->npair; ++p)
      for (int a = 0; a < out->pair[p].dof_count; ++a)
        for (int b = 0; b < a; ++b)
          rows[out->pair_dof[out->pair[p].dof_begin + a]].insert(
              out->pair_dof[out->pair[p].dof_begin + b]);
    // Eliminating row k couples all its columns with each other.
    for (int k = nv - 1; k >= 0; --k)
      for (const int i : rows[k])
        for (const int j : rows[k])
          if (j < i) rows[i].insert(j);
    out->hessian = pattern(rows);
  }
  Pattern pattern(const std::vector<std::set<int>>& rows) {
    std::vector<int> begin, col;
    for (const std::set<int>& row : rows) {
      begin.push_back(static_cast<int>(col.size()));
      col.insert(col.end(), row.begin(), row.end());
    }
    begin.push_back(static_cast<int>(col.size()));
    return {out->own(begin), out->own(col)};
  }

  void actuators() {
    const pb::Actuators& a = in.actuators();
    expect_size(a.trntype(), nu, 1, "actuators.trntype");
    expect_size(a.trnid(), nu, 1, "actuators.trnid");
    expect_size(a.ctrllimited(), nu, 1, "actuators.ctrllimited");
    expect_size(a.forcelimited(), nu, 1, "actuators.forcelimited");
    expect_size(a.dyntype(), nu, 1, "actuators.dyntype");
    expect_size(a.gaintype(), nu, 1, "actuators.gaintype");
    expect_size(a.biastype(), nu, 1, "actuators.biastype");
    const std::vector<double> gears = reals(a.gear(), nu, 6, "actuators.gear");
    std::vector<double> ctrl_range = reals(a.ctrlrange(), nu, 2, "actuators.ctrlrange");
    const std::vector<double> force_range = reals(a.forcerange(), nu, 2, "actuators.forcerange");
    const std::vector<double> gainprm = reals(a.gainprm(), nu, 10, "actuators.gainprm");
    const std::vector<double> biasprm = reals(a.biasprm(), nu, 10, "actuators.biasprm");
    reals(a.dynprm(), nu, 10, "actuators.dynprm");
    std::vector<int> dof(nu);
    std::vector<std::uint8_t> ctrl_limited(nu), force_limited(nu), affine(nu);
    std::vector<double> gear(nu), gain(nu), bias(nu * 3);
    for (int i = 0; i < nu; ++i) {
      if (a.trntype(i) != 0)
        refuse("unsupported: " + actuator(i) + ": transmission " + std::to_string(a.trntype(i)) +
               "; only joints can be driven");
      if (a.trnid(i) < 0 || a.trnid(i) >= nv)
        refuse(actuator(i) + ": drives joint " + std::to_string(a.trnid(i)) + " of " +
               std::to_string(nv));
      if (a.dyntype(i) != 0)
        refuse("unsupported: " + actuator(i) + ": activation dynamics " +
               std::to_string(a.dyntype(i)));
      if (a.gaintype(i) != 0)
        refuse("unsupported: " + actuator(i) + ": gain type " + std::to_string(a.gaintype(i)));
      if (a.biastype(i) != 0 && a.biastype(i) != 1)
        refuse("unsupported: " + actuator(i) + ": bias type " + std::to_string(a.biastype(i)));
      ctrl_limited[i] = a.ctrllimited(i) && !(disabled & kNoClampCtrl);
      force_limited[i] = a.forcelimited(i) != 0;
      const auto ordered = [&](const std::vector<double>& range, const char* what) {
        if (!(range[2 * i] <= range[2 * i + 1]))
          refuse(actuator(i) + ": expected an increasing " + what + ", got " +
                 number(range[2 * i]) + " to " + number(range[2 * i + 1]));
      };
      if (ctrl_limited[i]) ordered(ctrl_range, "ctrlrange");
      if (force_limited[i]) ordered(force_range, "forcerange");
      dof[i] = a.trnid(i);
      gear[i] = gears[6 * i];
      const bool off = disabled & kNoActuation;
      if (!off) gain[i] = gainprm[10 * i];
      for (int k = 0; k < 3 && !off; ++k)
        bias[3 * i + k] = a.biastype(i) == 1 ? biasprm[10 * i + k] : 0;
      affine[i] = a.biastype(i) == 1;
    }
    out->act_dof = out->own(dof);
    out->act_ctrl_limited = out->own(ctrl_limited);
    out->act_force_limited = out->own(force_limited);
    out->act_affine = out->own(affine);
    out->own(&Constants<float>::gear, &Constants<double>::gear, gear);
    out->own(&Constants<float>::gain, &Constants<double>::gain, gain);
    out->own(&Constants<float>::bias, &Constants<double>::bias, bias);
    out->own(&Constants<float>::ctrl_range, &Constants<double>::ctrl_range, ctrl_range);
    out->own(&Constants<float>::force_range, &Constants<double>::force_range, force_range);
  }
};

}  // namespace

std::shared_ptr<const Model> make_model(const pb::Model& message, std::string* error) {
  try {
    return Builder(message).build();
  } catch (const Refusal& refusal) {
    *error = refusal.line;
    return nullptr;
  }
}

int nq(const Model& m) { return m.nq; }
int nv(const Model& m) { return m.nv; }
int nu(const Model& m) { return m.nu; }
int nbody(const Model& m) { return m.nbody; }
int max_contacts(const Model& m) { return m.max_contacts; }
int max_rows(const Model& m) {
  int rows = m.max_limits;
  for (int i = 0; i < m.npair; ++i) rows += m.pair[i].contacts * (m.pair[i].condim == 1 ? 1 : 4);
  return rows;
}

}  // namespace sdpg::core
