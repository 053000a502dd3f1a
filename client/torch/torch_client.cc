#include "client/torch/torch_client.h"
