// The native manifests of the synthetic models, as JSON: [{"name", "dtype", "shape"}, ...].
#pragma once

namespace refit::synthetic_manifests {

extern const char* const gemma4_26b;
extern const char* const gemma4_tiny;

}  // namespace refit::synthetic_manifests
