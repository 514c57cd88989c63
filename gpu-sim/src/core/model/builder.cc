// make_model() and what all parts of the builder use.
#include "core/model/builder.h"

#include <cstdio>

#include "core/kernels.h"

namespace sdpg::core {

void refuse(std::string line) { throw Refusal{std::move(line)}; }

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

void rotation_columns(const double* q, double columns[3][3]) {
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  const double m[3][3] = {{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
                          {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
                          {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}};
  std::memcpy(columns, m, sizeof m);
}

namespace {

template <class To>
Softness<To> convert(const Softness<double>& from) {
  const auto c = [](double x) { return static_cast<To>(x); };
  return {
      c(from.stiffness),      c(from.damping),  c(from.d0),    c(from.rise),  c(from.one_minus_d1),
      c(from.inverse_width),  c(from.midpoint), c(from.power), c(from.below), c(from.above),
      c(from.inverse_weight), c(from.margin),   from.shape};
}

}  // namespace

void OwnedModel::own(const Softness<float>* Constants<float>::*single,
                     const Softness<double>* Constants<double>::*full,
                     const std::vector<Softness<double>>& values) {
  std::vector<Softness<float>> singles;
  for (const Softness<double>& s : values) singles.push_back(convert<float>(s));
  f.*single = own(singles);
  d.*full = own(values);
}

double Builder::finite(double x, const char* what) {
  if (!std::isfinite(x))
    refuse(std::string("model: ") + what + ": expected a finite number, got " + number(x));
  return x;
}

void Builder::normalize(double* q, int n, const std::string& what) {
  double square = 0;
  for (int i = 0; i < n; ++i) square += q[i] * q[i];
  const double length = std::sqrt(square);
  if (!(std::abs(length - 1) < 1e-3)) refuse(what + ": expected length 1, got " + number(length));
  // A length within rounding of 1 is left alone, so that the numbers stay MuJoCo's.
  if (std::abs(length - 1) > 1e-14)
    for (int i = 0; i < n; ++i) q[i] /= length;
}

std::shared_ptr<const Model> make_model(const pb::Model& message, std::string* error) {
  return make_model(message, {}, error);
}

std::shared_ptr<const Model> make_model(const pb::Model& message,
                                        const std::vector<ParameterSlot>& slots,
                                        std::string* error) {
  try {
    return Builder(message, slots).build();
  } catch (const Refusal& refusal) {
    *error = refusal.line;
    return nullptr;
  }
}

int nq(const Model& m) { return m.nq; }
int nv(const Model& m) { return m.nv; }
int nu(const Model& m) { return m.nu; }
int na(const Model& m) { return m.na; }
int nbody(const Model& m) { return m.nbody; }
int max_contacts(const Model& m) { return m.max_contacts; }
int max_rows(const Model& m) {
  int rows = m.nloss + m.max_limits;
  for (int i = 0; i < m.npair; ++i) {
    const int condim = m.pair[i].condim;
    rows += m.pair[i].contacts * (condim == 1 || m.elliptic ? condim : 2 * (condim - 1));
  }
  return rows;
}

}  // namespace sdpg::core
