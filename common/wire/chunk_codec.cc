#include "common/wire/chunk_codec.h"
