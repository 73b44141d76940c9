"""Run one pipeline over many scenes: one plan per scene, and tasks that are shared by scenes.

The verbs are those of a run (plan, process, close a phase, publish), for all scenes at once. They
belong to no engine.
"""

from pesto_runtime.campaigns.campaign_plan import Campaign, ScenePart, SceneRun, load_campaign
from pesto_runtime.campaigns.campaign_planning import CampaignSettings, plan_campaign
from pesto_runtime.campaigns.campaign_result import CAMPAIGN, publish_campaign
from pesto_runtime.campaigns.campaign_tasks import (
    close_campaign_phase,
    count_task_tiles,
    process_task,
)
from pesto_runtime.campaigns.scene_lists import SceneInputs, read_scenes
from pesto_runtime.campaigns.scene_plans import planned_scene

__all__ = [
    "CAMPAIGN",
    "Campaign",
    "CampaignSettings",
    "SceneInputs",
    "ScenePart",
    "SceneRun",
    "close_campaign_phase",
    "count_task_tiles",
    "load_campaign",
    "plan_campaign",
    "planned_scene",
    "process_task",
    "publish_campaign",
    "read_scenes",
]
