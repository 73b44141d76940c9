from .campaigns import pesto_campaign as pesto_campaign
from .catalog import Saved as Saved
from .catalog import inputs_of as inputs_of
from .catalog import params_of as params_of
from .catalog import read_saved as read_saved
from .errors import PestoRetryPolicy as PestoRetryPolicy
from .hooks import PestoHook as PestoHook
from .operators.campaign import PestoCloseCampaignOperator as PestoCloseCampaignOperator
from .operators.campaign import PestoMapCampaignOperator as PestoMapCampaignOperator
from .operators.campaign import PestoPublishCampaignOperator as PestoPublishCampaignOperator
from .operators.campaign import PestoRequireScenesOperator as PestoRequireScenesOperator
from .operators.discover import PestoDiscoverOperator as PestoDiscoverOperator
from .operators.outputs import PestoMergeOperator as PestoMergeOperator
from .operators.outputs import PestoMosaicOperator as PestoMosaicOperator
from .operators.outputs import PestoPublishOperator as PestoPublishOperator
from .operators.outputs import PestoReduceOperator as PestoReduceOperator
from .operators.plan import PestoPlanOperator as PestoPlanOperator
from .operators.plan_campaign import PestoPlanCampaignOperator as PestoPlanCampaignOperator
from .operators.process import PestoProcessOperator as PestoProcessOperator
from .operators.run import PestoCallOperator as PestoCallOperator
from .operators.run import PestoClosePhaseOperator as PestoClosePhaseOperator
from .operators.run import PestoMapOperator as PestoMapOperator
from .process_call import placement as placement
from .sensors import PestoHealthSensor as PestoHealthSensor
from .sensors import PestoJobSensor as PestoJobSensor
from .taskgroups import pesto_pipeline as pesto_pipeline

__all__: list[str]
NOT_INSTALLED: str
