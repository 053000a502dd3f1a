// The native manifests of the synthetic models, as JSON: [{"name", "dtype", "shape"}, ...].
#pragma once

namespace refit::synthetic_manifests {

extern const char* const gemma4_26b;
extern const char* const gemma4_tiny;
extern const char* const qwen3_30b;
extern const char* const deepseek_v3_1layer;
extern const char* const gpt_oss_20b;

}  // namespace refit::synthetic_manifests
