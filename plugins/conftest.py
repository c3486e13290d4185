"""As in the tests of lsregen: one thread, since the tensors are tiny."""

import torch

torch.set_num_threads(1)
