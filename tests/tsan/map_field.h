// Stands before Protobuf's header of this name in builds with ThreadSanitizer. There it gives map fields two more
// members, which packaged Protobuf, compiled without, does not know: program and library would disagree on the layout.
#ifdef __SANITIZE_THREAD__
#undef __SANITIZE_THREAD__
#include_next <google/protobuf/map_field.h>
#define __SANITIZE_THREAD__ 1
#else
#include_next <google/protobuf/map_field.h>
#endif
