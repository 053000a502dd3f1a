// The version of this software.
#pragma once

namespace refit {

// Such as "0.1.0".
const char* SoftwareVersion();

}  // namespace refit
