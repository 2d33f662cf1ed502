"""Story time: how the days that people live map to the seconds of the clock. Pure but for the schedule it fills."""

from __future__ import annotations

from simulator.scenario.file import Story
from simulator.world.schedule import Action, Schedule
from siyu.events.business_time import business_day_start_ms

DAY_S = 86_400


class StoryTime:
    """The time of one story, which begins at ``start_s`` (epoch seconds)."""

    def __init__(self, story: Story, start_s: int, schedule: Schedule) -> None:
        self.start_s = start_s
        self.end_s = start_s + story.duration_s if story.duration_s else 0
        """0: never."""
        self.pace = story.pace
        self.shop_hours = story.hours == "shop" and story.pace == 1.0
        self.zero_s = business_day_start_ms(start_s * 1000) // 1000 if self.shop_hours else start_s
        """Where story days are counted from: at shop hours, midnight before the story's beginning."""
        self._schedule = schedule

    def at(self, time_s: int, action: Action) -> None:
        """Does something later, unless the story is over by then: the world may live on, its people begin nothing."""
        if not self.end_s or time_s < self.end_s:
            self._schedule.at(time_s, action)

    def clock_s(self, story_s: float) -> int:
        """Seconds of the clock that so many seconds of the story take."""
        return round(story_s / self.pace)

    def days(self, time_s: int) -> float:
        """Story days at a second of the clock."""
        return (time_s - self.zero_s) * self.pace / DAY_S

    def second(self, days: float) -> int:
        """The second of the clock at so many story days."""
        return self.zero_s + round(days * DAY_S / self.pace)
