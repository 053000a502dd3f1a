// Whether this program is built with a sanitizer. Then it is slower and keeps freed memory.
#pragma once

namespace refit {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace refit
