// The list of kernels, compiled once per instruction set (PYRNN_ISA) and dtype (PYRNN_REAL).
#include "associative/kernel.hpp"
#include "attention/additive.hpp"
#include "attention/kernel.hpp"
#include "base/machine.hpp"
#include "dispatch.hpp"
#include "linear/kernel.hpp"
#include "losses/kernel.hpp"
#include "optimisers/kernel.hpp"
#include "recurrent/cells.hpp"

namespace pyrnn::PYRNN_ISA {

extern const Kernels<PYRNN_REAL> PYRNN_TABLE;
const Kernels<PYRNN_REAL> PYRNN_TABLE{
    cells<PYRNN_REAL>,
    LinearLoop<PYRNN_REAL>::kernels,
    {cross_entropy<PYRNN_REAL>},
    {adam<PYRNN_REAL>, sgd<PYRNN_REAL>, rmsprop<PYRNN_REAL>, sum_of_squares<PYRNN_REAL>},
    HopfieldLoop<PYRNN_REAL>::kernels,
    attention_kernels<PYRNN_REAL>,
    AdditiveLoop<PYRNN_REAL>::kernels,
    fma_loop<PYRNN_REAL>,
    read_loop<PYRNN_REAL>};

}  // namespace pyrnn::PYRNN_ISA
