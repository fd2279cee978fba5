"""Campaigns: from draws to a list of stable, new crystals on target."""

from autoperi.discovery.campaign.discovery import Discovery, discover
from autoperi.discovery.campaign.executors import in_processes, on_ray
from autoperi.discovery.campaign.settings import Campaign

__all__ = ["Campaign", "Discovery", "discover", "in_processes", "on_ray"]
