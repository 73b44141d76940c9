from .client.async_client import AsyncClient as AsyncClient
from .client.client import Client as Client
from .contract import Description as Description
from .contract import Margin as Margin
from .contract import Pipeline as Pipeline
from .contract import Window as Window
from .errors import PestoError as PestoError
from .finished_run import Run as Run
from .flows import flow as flow
from .processor import Blend as Blend
from .processor import Named as Named
from .processor import Raster as Raster
from .processor import TileInfo as TileInfo
from .processor import Vector as Vector
from .processor import process as process
from .processor.data_types import DataType as DataType
from .processor.protocol import log as log
from .processor.protocol import progress as progress

__version__: str

__all__: list[str]
