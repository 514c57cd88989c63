// solref and solimp of one constraint as MuJoCo resolves them.
#include <algorithm>
#include <cmath>

#include "core/model/builder.h"

namespace sdpg::core {

Softness<double> Builder::soften(const std::string& what, const double* ref, const double* imp,
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

}  // namespace sdpg::core
