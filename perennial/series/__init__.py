"""What checks measured, read as series: statistics as frames, the newest check's figures. It measures nothing."""
