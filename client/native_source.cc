#include "client/native_source.h"
