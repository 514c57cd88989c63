// Sizes and options of the whole model.
#include <algorithm>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::sizes() {
  const auto count = [](int n, int most, const char* what) {
    if (n > most)
      refuse(std::string("model: at most ") + std::to_string(most) + " " + what +
             " are supported, got " + std::to_string(n));
    return n;
  };
  nbody = count(in.bodies().name_size(), kMaxBodies, "bodies");
  njnt = count(in.joints().name_size(), kMaxDofs, "joints");
  ngeom = count(in.geoms().name_size(), kMaxGeoms, "geoms");
  nu = count(in.actuators().name_size(), kMaxDofs, "actuators");
  if (nbody < 2)
    refuse("model: expected the world and at least one body, got " + std::to_string(nbody) +
           " bodies");
  if (njnt < 1) refuse("model: no joint, so nothing can move; add one");
  expect_size(in.joints().type(), njnt, 1, "joints.type");
  for (int i = 0; i < njnt; ++i) {
    const int type = in.joints().type(i);
    if (type < 0 || type > 3) refuse(joint(i) + ": unknown type " + std::to_string(type));
    joint_type.push_back(static_cast<JointType>(type));
    nq += position_count(joint_type[i]);
    nv += dof_count(joint_type[i]);
  }
  count(nv, kMaxDofs, "degrees of freedom");
  out->nbody = nbody;
  out->njnt = njnt;
  out->nq = nq;
  out->nv = nv;
  out->ngeom = ngeom;
  out->nu = nu;
}

void Builder::options() {
  const pb::Option& o = in.option();
  if (!(o.timestep() > 0 && o.timestep() <= 1))
    refuse("option timestep: expected above 0 and at most 1 s, got " + number(o.timestep()));
  const std::vector<double> gravity = reals(o.gravity(), 1, 3, "option gravity");
  if (o.integrator() != 0 && o.integrator() != 3)
    refuse("unsupported: option integrator " + std::to_string(o.integrator()) +
           "; use Euler (0) or implicitfast (3)");
  if (o.cone() != 0 && o.cone() != 1)
    refuse("option cone: expected 0 (pyramidal) or 1 (elliptic), got " + std::to_string(o.cone()));
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

  out->integrator = static_cast<Integrator>(o.integrator());
  out->iterations = o.iterations();
  out->ls_iterations = o.ls_iterations();
  out->warm_start = !(disabled & kNoWarmStart);
  out->elliptic = o.cone() == 1;
  const auto fill = [&](auto& k) {
    using T = std::decay_t<decltype(k.timestep)>;
    k.timestep = static_cast<T>(o.timestep());
    for (int i = 0; i < 3; ++i)
      k.gravity[i] = disabled & kNoGravity ? T(0) : static_cast<T>(gravity[i]);
    k.solver_scale = static_cast<T>(1 / (in.stat_meaninertia() * nv));
    k.tolerance = static_cast<T>(o.tolerance());
    k.impratio_root = static_cast<T>(std::sqrt(std::max(kTiny, o.impratio())));
  };
  fill(out->f);
  fill(out->d);
}

}  // namespace sdpg::core
