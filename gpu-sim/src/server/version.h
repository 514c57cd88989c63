// Version of the build, for example a git description.
#pragma once

namespace sdpg::server {

const char* version();

}  // namespace sdpg::server
