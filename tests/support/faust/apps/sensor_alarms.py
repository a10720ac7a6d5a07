"""An alarm for a sensor that is too hot three times in a row; its end when the sensor has cooled down."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

LIMIT, COOL, IN_A_ROW = 80.0, 60.0, 3

app = faust.App(name("sensor-alarms"), topic_partitions=2)


class Measurement(faust.Record):
    sensor: str
    celsius: float
    number: int


class Sensor(faust.Record):
    hot: int = 0
    alarm: bool = False
    highest: float = -273.15


class Alarm(faust.Record):
    sensor: str
    kind: str
    number: int
    celsius: float


measurements = app.topic(name("measurements"), key_type=str, value_type=Measurement)
alarms = app.topic(name("alarms"), key_type=str, value_type=Alarm)
sensors = app.Table("sensors", key_type=str, value_type=Sensor, default=Sensor, partitions=2)


@app.agent(measurements)
async def watch(stream: Any) -> None:
    async for seen in stream:
        sensor = sensors[seen.sensor]
        sensor.hot = sensor.hot + 1 if seen.celsius > LIMIT else 0
        sensor.highest = max(sensor.highest, seen.celsius)
        kind = ""
        if not sensor.alarm and sensor.hot >= IN_A_ROW:
            sensor.alarm, kind = True, "begin"
        elif sensor.alarm and seen.celsius < COOL:
            sensor.alarm, kind = False, "end"
        sensors[seen.sensor] = sensor
        if kind:
            alarm = Alarm(seen.sensor, kind, seen.number, seen.celsius)
            await alarms.send(key=seen.sensor, value=alarm, headers={"kind": kind.encode()})
