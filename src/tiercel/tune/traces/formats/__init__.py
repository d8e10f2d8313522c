"""The formats of traces: a module each. `FORMATS` lists them in the order in which a file is held against them."""

from tiercel.tune.traces.format import TraceFormat
from tiercel.tune.traces.formats.aiperf import AIPERF_EXPORT, AIPERF_INPUTS
from tiercel.tune.traces.formats.bailian import BAILIAN
from tiercel.tune.traces.formats.dynamo import DYNAMO
from tiercel.tune.traces.formats.lengths import AZURE, BURSTGPT
from tiercel.tune.traces.formats.mooncake import MOONCAKE, MOONCAKE_WHOLE
from tiercel.tune.traces.formats.prompts import PROMPTS
from tiercel.tune.traces.formats.recorded import RECORDING
from tiercel.tune.traces.formats.saved import SAVED
from tiercel.tune.traces.formats.token_ids import TOKEN_IDS
from tiercel.tune.traces.formats.weka import WEKA

FORMATS: dict[str, TraceFormat] = {
    found.name: found
    for found in (
        DYNAMO,
        WEKA,
        AIPERF_INPUTS,
        AIPERF_EXPORT,
        BAILIAN,
        MOONCAKE,
        MOONCAKE_WHOLE,
        BURSTGPT,
        AZURE,
        TOKEN_IDS,
        PROMPTS,
        RECORDING,
        SAVED,
    )
}
