"""What `gap-mllm push` does: a folder is looked through, loaded as a stranger loads it, and uploaded to the Hub."""

from .upload_plan import UploadPlan, plan_upload
from .uploading import PushReport, push_folder


__all__ = ["PushReport", "UploadPlan", "plan_upload", "push_folder"]
