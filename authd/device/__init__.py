"""What a device or gateway imports: its key, a proof for each CONNECT, grants of its own.

Example::

    key = DeviceKey.load("kitchen-sensor.key")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=key.client_id)
    client.on_pre_connect = key.on_pre_connect("broker.example:1883")
"""

from authd.device.key import DeviceKey

__all__ = ["DeviceKey"]
