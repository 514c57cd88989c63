// Views that several tests ask for.
#pragma once

#include <cstdint>

#include "sdpg/view/v1/view.pb.h"

namespace sdpg::testing {

// Adds a view by Hopper's camera to a CreateBatchRequest or CreateSceneRequest.
template <class Request>
void add_view(Request* request, const char* name, view::v1::ImageKind kind, std::uint32_t frames,
              std::uint32_t width, std::uint32_t height, double noise = 0) {
  auto* view = request->add_views();
  view->set_name(name);
  view->set_camera("side");
  view->set_kind(kind);
  view->set_frames(frames);
  view->set_width(width);
  view->set_height(height);
  view->set_depth_noise(noise);
}

}  // namespace sdpg::testing
