"""A store on this machine's disk in front of one that many machines share."""
