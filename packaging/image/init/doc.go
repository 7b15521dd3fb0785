// Command init is the first program of the container: as root it prepares what
// the programs of the sensor find when they start, and then becomes its
// arguments, the supervisor.
//
// It runs again after every restart of the container, over what the run before
// left. It hands out as little as it can: the directories that the host mounts
// keep their owners, the sensor's group is added, and no link in them is
// followed, since the sensor of the run before could write there. The mounted
// socket of the host's engine is the host's own inode and is never changed; its
// group is handed to the manager.
//
// What is missing is reported and not fatal: a sensor that cannot update itself
// still is a sensor.
package main
