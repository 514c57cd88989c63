// The file: a header, then every array of the scene behind its length, of the structs field after
// field. A geom's mesh is its number in the scene's meshes and 1, or 0.
#include "render/flat_scene.h"

#include <cstdint>
#include <cstring>

namespace sdpg::render {
namespace {

// The number after the name is the version of the fields below.
constexpr char kMagic[8] = {'S', 'D', 'P', 'G', 'S', 'C', 'N', '1'};

// Calls f for every field, of a struct to be read or to be written.
template <class M, class F>
void mount_fields(M& m, const F& f) {
  f(m.mode), f(m.body), f(m.target), f(m.pos), f(m.pos0), f(m.poscom0);
}
template <class F>
void fields(Camera& c, const F& f) {
  mount_fields(c.mount, f);
  f(c.quat), f(c.mat0), f(c.height);
}
template <class F>
void fields(Light& l, const F& f) {
  mount_fields(l.mount, f);
  f(l.headlight), f(l.directional), f(l.castshadow), f(l.dir), f(l.dir0), f(l.ambient);
  f(l.diffuse), f(l.specular), f(l.attenuation), f(l.cos_cutoff), f(l.exponent);
}
// Without the mesh.
template <class F>
void fields(Geom& g, const F& f) {
  f(g.id), f(g.type), f(g.body), f(g.pos), f(g.axes), f(g.size), f(g.extent), f(g.centre);
  f(g.albedo), f(g.checker), f(g.first), f(g.second), f(g.squares);
  f(g.emission), f(g.specular), f(g.exponent), f(g.look);
}

struct Writer {
  std::string out;
  template <class T>
  void number(const T& value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class List>
  void list(const List& items) {
    number(std::uint64_t{items.size()});
    out.append(reinterpret_cast<const char*>(items.data()), items.size() * sizeof(items[0]));
  }
  template <class T>
  void structs(std::vector<T> items) {
    number(std::uint64_t{items.size()});
    for (T& item : items) fields(item, [&](const auto& field) { number(field); });
  }
};

struct Reader {
  const std::string& in;
  std::size_t at = sizeof kMagic;
  bool good = true;

  void bytes(void* to, std::size_t count) {
    good = good && count <= in.size() - at;
    if (!good || count == 0) return;
    std::memcpy(to, in.data() + at, count);
    at += count;
  }
  template <class T>
  void number(T* value) {
    bytes(value, sizeof *value);
  }
  template <class List>
  void list(List* items) {
    std::uint64_t count = 0;
    number(&count);
    good = good && count <= (in.size() - at) / sizeof((*items)[0]);
    if (!good) return;
    items->resize(count);
    bytes(items->data(), count * sizeof((*items)[0]));
  }
  template <class T>
  void structs(std::vector<T>* items) {
    std::uint64_t count = 0;
    number(&count);
    for (std::uint64_t i = 0; good && i < count; ++i) {
      T item{};
      fields(item, [&](auto& field) { number(&field); });
      items->push_back(item);
    }
  }
};

}  // namespace

std::string save_flat_scene(const Scene& scene) {
  Writer to;
  to.number(kMagic);
  to.number(scene.nbody);
  to.list(scene.parent);
  to.list(scene.mass);
  to.list(scene.ipos);
  to.list(scene.subtree_mass);
  to.number(std::uint32_t{scene.needs_com});
  to.structs(scene.geoms);
  for (const Geom& geom : scene.geoms) {
    std::uint64_t number = 0;
    for (std::size_t k = 0; k < scene.meshes.size(); ++k)
      if (scene.meshes[k]->nodes.data() == geom.mesh.nodes) number = k + 1;
    to.number(number);
  }
  to.structs(scene.cameras);
  for (const std::string& name : scene.camera_names) to.list(name);
  to.structs(scene.lights);
  to.number(scene.background);
  to.number(scene.global_ambient);
  to.number(std::uint64_t{scene.meshes.size()});
  for (const auto& mesh : scene.meshes) {
    to.list(mesh->nodes);
    to.list(mesh->triangles);
    to.number(mesh->centre);
    to.number(mesh->extent);
  }
  return to.out;
}

std::shared_ptr<const Scene> load_flat_scene(const std::string& file, std::string* error) {
  if (file.size() < sizeof kMagic || std::memcmp(file.data(), kMagic, sizeof kMagic - 1) != 0) {
    *error = "not a flat scene";
    return nullptr;
  }
  if (file[sizeof kMagic - 1] != kMagic[sizeof kMagic - 1]) {
    *error = "the flat scene is of another version; write it again with flatten_models";
    return nullptr;
  }
  auto scene = std::make_shared<Scene>();
  Reader from{file};
  from.number(&scene->nbody);
  from.list(&scene->parent);
  from.list(&scene->mass);
  from.list(&scene->ipos);
  from.list(&scene->subtree_mass);
  std::uint32_t needs_com = 0;
  from.number(&needs_com);
  scene->needs_com = needs_com != 0;
  from.structs(&scene->geoms);
  std::vector<std::uint64_t> mesh_of(scene->geoms.size());
  for (std::uint64_t& number : mesh_of) from.number(&number);
  from.structs(&scene->cameras);
  scene->camera_names.resize(scene->cameras.size());
  for (std::string& name : scene->camera_names) from.list(&name);
  from.structs(&scene->lights);
  from.number(&scene->background);
  from.number(&scene->global_ambient);
  std::uint64_t meshes = 0;
  from.number(&meshes);
  for (std::uint64_t k = 0; from.good && k < meshes; ++k) {
    auto mesh = std::make_shared<Mesh>();
    from.list(&mesh->nodes);
    from.list(&mesh->triangles);
    from.number(&mesh->centre);
    from.number(&mesh->extent);
    scene->meshes.push_back(std::move(mesh));
  }
  for (std::size_t g = 0; from.good && g < mesh_of.size(); ++g) {
    from.good = mesh_of[g] <= scene->meshes.size();
    if (from.good && mesh_of[g] > 0) set_mesh(*scene->meshes[mesh_of[g] - 1], &scene->geoms[g]);
  }
  if (!from.good || from.at != file.size()) {
    *error = "the flat scene is damaged: expected another length";
    return nullptr;
  }
  return scene;
}

}  // namespace sdpg::render
